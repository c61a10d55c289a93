"""Quantization schemes: which integer codes an operator of a target multiplies, and over which ranges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

__all__ = ["DYNAMIC", "GRANULARITIES", "OPS", "CodeRange", "Granularity", "RangeOf", "Scheme"]

# "layer_norm" is RMS norm too, "softmax" takes its masks, "add" and "mul" constants, "embedding" reads rows of a
# table; what only moves elements (reshape, slice, pad) needs no scheme.
OPS = (
    "conv2d",
    "depthwise_conv2d",
    "dense",
    "add",
    "mul",
    "matmul",
    "concat",
    "avg_pool",
    "max_pool",
    "resize",
    "unary",
    "softmax",
    "layer_norm",
    "embedding",
)

Granularity = Literal["tensor", "axis", "group"]
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)
# What one range taken at run time may span.
RangeOf = Literal["tensor", "token"]
DYNAMIC: tuple[RangeOf, ...] = get_args(RangeOf)


@dataclass(frozen=True)
class CodeRange:
    """Codes low..high (inclusive) stored as `dtype`; `symmetric` means the zero point is 0."""

    dtype: str
    low: int
    high: int
    symmetric: bool = False

    def covers(self, other: CodeRange) -> bool:
        """Whether every tensor quantized as `other` is also one of this range."""
        return (
            self.dtype == other.dtype
            and self.low <= other.low
            and other.high <= self.high
            and (other.symmetric or not self.symmetric)
        )


@dataclass(frozen=True)
class Scheme:
    """One way an operator runs on integers: activation codes x weight codes, summed in `accumulate`.

    weight:       None for operators without weights.
    granularity:  what one weight scale may span; a scheme that asks lists only what it uses.
    power_of_two: scales are powers of two, so requantization is a shift.
    dynamic:      what a range of the activation taken at run time may span; the result is float32 then. A scheme
                  that asks for ranges fixed before lists none.
    note:         what a user should know when this scheme is used; not part of its identity.
    """

    activation: CodeRange
    weight: CodeRange | None = None
    accumulate: str = "int32"
    granularity: tuple[Granularity, ...] = ("tensor",)
    power_of_two: bool = False
    dynamic: tuple[RangeOf, ...] = ()
    note: str = field(default="", compare=False)

    def covers(self, other: Scheme) -> bool:
        """Whether hardware that runs this scheme also runs `other`."""
        return (
            self.activation.covers(other.activation)
            and _weight_covers(self.weight, other.weight)
            and self.accumulate == other.accumulate
            and set(other.granularity) <= set(self.granularity)
            and (other.power_of_two or not self.power_of_two)
            and set(other.dynamic) <= set(self.dynamic)
        )


def _weight_covers(mine: CodeRange | None, other: CodeRange | None) -> bool:
    if mine is None or other is None:
        return mine is other
    return mine.covers(other)
