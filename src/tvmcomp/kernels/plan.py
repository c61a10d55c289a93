"""The plan of a dot-product kernel: its blocking, chosen by rules from the convolution's shape and the ISA."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tvmcomp.kernels.geometry import Geometry
from tvmcomp.kernels.vector import Isa

__all__ = ["Plan", "Split", "choose_plan"]


class Split(Enum):
    """The outermost loop, which is the one threads share."""

    CHANNELS = "channels"  # each weight is read by one thread, all activations by every thread
    ROWS = "rows"  # chunks of rows of blocks; all weights are read by every thread


@dataclass(frozen=True)
class Plan:
    """The knobs of one kernel; the tuner's search space.

    tile:     output pixels of one block, (height, width).
    vectors:  vectors of output channels of one block; tile * vectors accumulators live in registers.
    unroll:   multiply-accumulate steps per body of the inner loop.
    split:    the outermost loop.
    chunk:    rows of blocks that one block of weights serves before the next; for Split.ROWS only.
    prefetch: fetch the next block of weights into L2 while this one is in use.
    """

    tile: tuple[int, int]
    vectors: int
    unroll: int
    split: Split
    chunk: int = 1
    prefetch: bool = False


def choose_plan(geometry: Geometry, isa: Isa) -> Plan:
    """The rules."""
    vectors = -(-geometry.outputs // isa.lanes)
    if not isa.fma:
        return Plan((1, min(2, geometry.width)), 1, 4, Split.ROWS)
    width = min(14 if isa.lanes == 16 else 4, geometry.width)
    return Plan((1, width), min(2, vectors), 4, Split.ROWS)
