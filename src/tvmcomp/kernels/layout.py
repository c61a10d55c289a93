"""Physical layout of one tensor in memory: NHWC rows with a halo and a channel pitch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """[batch][height + 2*halo][width + 2*halo][pitch] elements of `itemsize` bytes; all offsets are in bytes.

    A producer writes the halo on every run (integer: the tensor's zero point, float: 0.0); elements
    [channels, pitch) of a pixel hold garbage that a producer may write and a consumer must not let matter.
    `offset` takes ints or TIR expressions and gives the same.
    """

    batch: int
    height: int
    width: int
    channels: int
    itemsize: int
    halo: int = 0
    pitch: int = 0  # elements; 0 means channels

    def __post_init__(self) -> None:
        if self.pitch == 0:
            object.__setattr__(self, "pitch", self.channels)

    @classmethod
    def dense(cls, shape: tuple[int, ...], itemsize: int) -> Layout:
        """Row-major without halo or padding; ranks below 4 gain leading ones, above 4 fold into the batch."""
        *lead, h, w, c = (1, 1, 1, *shape)
        return cls(prod(lead), h, w, c, itemsize)

    @property
    def is_dense(self) -> bool:
        return self.halo == 0 and self.pitch == self.channels

    @property
    def pixel(self) -> int:
        return self.pitch * self.itemsize

    @property
    def row(self) -> int:
        return (self.width + 2 * self.halo) * self.pixel

    @property
    def image(self) -> int:
        return (self.height + 2 * self.halo) * self.row

    @property
    def nbytes(self) -> int:
        """Bytes the tensor occupies, halo included, without slack."""
        return self.batch * self.image

    def steps(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Bytes between neighbours along each axis of the tensor of `shape` that is laid out so."""
        steps = [self.image, self.row, self.pixel, self.itemsize]
        for size in reversed(shape[1:-3]):
            steps.insert(0, steps[0] * size)
        return tuple(steps[len(steps) - len(shape) :])

    def offset(self, n: Any, h: Any, w: Any) -> Any:
        """Byte offset of pixel (n, h, w); h and w may reach into the halo (-halo .. size+halo-1)."""
        return n * self.image + (h + self.halo) * self.row + (w + self.halo) * self.pixel
