"""Multiply-accumulate steps, one row per instruction set: a few channels of one pixel times a vector of weights.

    acc[o] += sum_j x[j] * w[o][j]      o: the lanes of a vector, j: the channels of one unit of x

For bytes and for floats alike x is a broadcast and w a vector load, so one emitter serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tvm import tirx
from tvm.ir import Expr

from tvmcomp.kernels.vector import Isa, Operand, fma, pure, splat

__all__ = ["Mac", "mac_for"]


class Mac(Protocol):
    """unit: channels per step; acc: the accumulator's dtype; bias: what x is read shifted by."""

    unit: int
    acc: str
    shift: int

    def broadcast(self, x: Operand, offset: Expr, lanes: int) -> Expr:
        """One unit of x, in every lane."""

    def weights(self, constants: Operand, offset: Expr, lanes: int) -> Expr:
        """The weights of one unit for `lanes` outputs, stored [lanes][unit]."""

    def step(self, acc: Expr, x: Expr, w: Expr, lanes: int) -> Expr:
        """The accumulator after this step."""


@dataclass(frozen=True)
class Vnni:
    """vpdpbusd: four u8 times four s8 into int32. An s8 x is read as x + 128."""

    shift: int
    unit: int = 4
    acc: str = "int32"

    def broadcast(self, x: Operand, offset: Expr, lanes: int) -> Expr:
        dword = x.load(offset, "int32", 1)
        if self.shift:
            dword = dword ^ tirx.IntImm("int32", -0x7F7F7F80)
        return splat(dword, lanes, "int32")

    def weights(self, constants: Operand, offset: Expr, lanes: int) -> Expr:
        return constants.load(offset, "int8", 4 * lanes)

    def step(self, acc: Expr, x: Expr, w: Expr, lanes: int) -> Expr:
        codes = tirx.reinterpret(f"uint8x{4 * lanes}", x)
        return pure("int32", lanes, "llvm.x86.avx512.vpdpbusd.512", acc, codes, w)


@dataclass(frozen=True)
class Fma:
    """float32 fused multiply-add."""

    isa: Isa
    unit: int = 1
    acc: str = "float32"
    shift: int = 0

    def broadcast(self, x: Operand, offset: Expr, lanes: int) -> Expr:
        return splat(x.load(offset, "float32", 1), lanes)

    def weights(self, constants: Operand, offset: Expr, lanes: int) -> Expr:
        return constants.load(offset, "float32", lanes)

    def step(self, acc: Expr, x: Expr, w: Expr, lanes: int) -> Expr:
        return fma(x, w, acc, lanes) if self.isa.fma else acc + x * w


@dataclass(frozen=True)
class Widen:
    """8-bit codes widened to int32: exact on every CPU."""

    dtype: str
    unit: int = 1
    acc: str = "int32"
    shift: int = 0

    def broadcast(self, x: Operand, offset: Expr, lanes: int) -> Expr:
        return splat(x.widen(offset, self.dtype, 1, "int32"), lanes, "int32")

    def weights(self, constants: Operand, offset: Expr, lanes: int) -> Expr:
        return constants.widen(offset, "int8", lanes, "int32")

    def step(self, acc: Expr, x: Expr, w: Expr, lanes: int) -> Expr:
        return acc + x * w


def mac_for(dtype: str, isa: Isa) -> Mac:
    """The row for x of `dtype` on `isa`."""
    if dtype == "float32":
        return Fma(isa)
    if isa.vnni and isa.lanes == 16:
        return Vnni(shift=128 if dtype == "int8" else 0)
    return Widen(dtype)
