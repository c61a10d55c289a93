"""`Claim`: what a matcher returns, the layers that replace a group of nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvmcomp.graph.layers import Layer, QParams, TensorSpec

__all__ = ["Claim", "bounds", "code_range"]


@dataclass(frozen=True, eq=False)
class Claim:
    """`layers` compute node `end` (the last layer's output carries its name); `absorbed` nodes vanish into them.

    `specs` describes every tensor the layers produce, `end` included. `exported` are those that other claims
    read, if it is not just `end`.
    """

    end: str
    layers: tuple[Layer, ...]
    specs: tuple[TensorSpec, ...]
    absorbed: tuple[str, ...] = ()
    exported: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Tensors the claim reads from outside, without repeats."""
        own = {spec.name for spec in self.specs}
        names = (name for layer in self.layers for name in layer.inputs if name not in own)
        return tuple(dict.fromkeys(names))


def code_range(dtype: str) -> tuple[int, int]:
    """Smallest and largest code of an 8-bit dtype."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def bounds(low: float, high: float, qparams: QParams, dtype: str) -> tuple[int, int]:
    """Real clip bounds as codes; quantization is monotone, so clamping codes equals clamping before it."""
    least, most = code_range(dtype)

    def code(value: float) -> int:
        if np.isinf(value):
            return least if value < 0 else most
        scaled = np.float32(value) / np.float32(qparams.scale)
        return int(np.clip(np.rint(scaled) + qparams.zero_point, least, most))

    return code(low), code(high)
