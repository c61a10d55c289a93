"""`Spec`: everything the dot-product emitter needs to know about one convolution, as plain integers.

A convolution is three nested walks: over blocks of output pixels, over blocks of output channels, and over
taps of the kernel, each tap a run of contiguous elements of x. All offsets are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvmcomp.kernels.geometry import Geometry, Offsets
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.mac import Mac
from tvmcomp.kernels.plan import Plan

__all__ = ["Band", "Columns", "Epilogue", "Segment", "Spec", "bands", "columns"]

ZERO = Offsets(0, 0, 0)


@dataclass(frozen=True)
class Epilogue:
    """What happens to an accumulator: scale and bias, residual, clip, table, store as `dtype`.

    clip: the bounds, None where the range of `dtype` (or float's) already is the bound.
    wide: values may leave the range of int32, so they are clipped before they are rounded.
    dynamic: scale and zero point of x are tensors too, and the output is float32.
    """

    dtype: str
    residual: str | None = None
    low: float | None = None
    high: float | None = None
    table: bool = False
    wide: bool = False
    dynamic: bool = False


@dataclass(frozen=True)
class Spec:
    """One kernel. Equal specs are equal functions, so weights and scales are not in it.

    mac:   the multiply-accumulate step; a run of x is padded to whole units of it by zero weights.
    dtype: of x.
    lanes: output channels in one vector.
    y:     its layout, for its halo.
    zero:  y's zero point, added to what is rounded and written into the halo.
    start: whether integer sums start at what undoes x's zero point and the shift it is read with.
    """

    geometry: Geometry
    plan: Plan
    epilogue: Epilogue
    mac: Mac
    dtype: str
    lanes: int
    y: Layout
    zero: int
    start: bool = False

    @property
    def units(self) -> int:
        """Multiply-accumulate steps in one tap."""
        return -(-self.geometry.run // self.mac.unit)

    @property
    def steps(self) -> int:
        """Multiply-accumulate steps per output."""
        return self.geometry.taps[0][0] * self.geometry.taps[1][0] * self.units

    @property
    def vectors(self) -> int:
        """Vectors of output channels in one group."""
        return -(-self.geometry.outputs // self.lanes)

    @property
    def products(self) -> int:
        """Multiplications in all, as a measure of work."""
        g = self.geometry
        return g.pixels * g.depth * g.outputs * g.groups

    def stored(self, vector: int) -> int:
        """Outputs to store of this vector of a group: all lanes if there is room for them."""
        first = vector * self.lanes
        return (
            self.lanes
            if first + self.lanes <= self.geometry.room
            else self.geometry.outputs - first
        )


@dataclass(frozen=True)
class Segment:
    """`count` blocks of output pixels, `step` apart; `pixels` are the offsets of the first block's."""

    count: int
    step: Offsets
    pixels: tuple[Offsets, ...]


@dataclass(frozen=True)
class Band:
    """`count` groups of segments in one image, `step` apart: rows of blocks."""

    count: int
    step: Offsets
    segments: tuple[Segment, ...]

    @property
    def blocks(self) -> int:
        return sum(segment.count for segment in self.segments)


@dataclass(frozen=True)
class Columns:
    """`count` blocks of `vectors` vectors of output channels, from vector `start` of the group."""

    start: int
    count: int
    vectors: int


def bands(spec: Spec) -> tuple[Band, ...]:
    """The output pixels of one image cut into blocks of the plan's tile, the rests into smaller ones."""
    g, (tile_h, tile_w) = spec.geometry, spec.plan.tile
    full, rest = divmod(g.height, tile_h)
    cuts = []
    if full:
        cuts.append(Band(full, g.row * tile_h, _segments(g, tile_h, tile_w, g.start)))
    if rest:
        start = g.start + g.row * (full * tile_h)
        cuts.append(Band(1, ZERO, _segments(g, rest, tile_w, start)))
    return tuple(cuts)


def _segments(g: Geometry, height: int, width: int, start: Offsets) -> tuple[Segment, ...]:
    full, rest = divmod(g.width, width)
    cuts = []
    if full:
        cuts.append(Segment(full, g.pixel * width, _rectangle(g, height, width, start)))
    if rest:
        start = start + g.pixel * (full * width)
        cuts.append(Segment(1, ZERO, _rectangle(g, height, rest, start)))
    return tuple(cuts)


def _rectangle(g: Geometry, height: int, width: int, start: Offsets) -> tuple[Offsets, ...]:
    return tuple(start + g.row * h + g.pixel * w for h in range(height) for w in range(width))


def columns(spec: Spec) -> tuple[Columns, ...]:
    """The output channels of one group cut into blocks of the plan's vectors, the rest into smaller ones.

    A last vector that may not be stored whole is in a block of its own.
    """
    g, vectors = spec.geometry, spec.plan.vectors
    total = -(-g.outputs // spec.lanes)
    full, rest = divmod(total, vectors)
    if total * spec.lanes > g.room and rest == 0 and full > 1:
        full, rest = full - 1, vectors
    cuts = [Columns(0, full, vectors)] if full else []
    if rest:
        cuts.append(Columns(full * vectors, 1, rest))
    return tuple(cuts)
