"""Multiply-accumulate steps, one row per instruction set: a few channels of one pixel times a vector of weights.

    acc[o] += sum_j x[j] * w[o][j]      o: the lanes of a vector, j: the channels of one unit of x

For bytes and for floats alike x is a broadcast and w a vector load, so one emitter serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr

from tvmcomp.kernels.vector import Isa, Operand, cast, fma, pure, splat

__all__ = ["Mac", "mac_for"]

# Two products of a u8 and a weight in this range cannot leave int16.
_NARROW = 64


class Mac(Protocol):
    """unit: channels per step; shift: what x is read higher by; weight, acc: dtypes of the packed weights and of
    the accumulator; prepares: a broadcast costs vector instructions of its own.
    """

    @property
    def unit(self) -> int: ...

    @property
    def shift(self) -> int: ...

    @property
    def weight(self) -> str: ...

    @property
    def acc(self) -> str: ...

    @property
    def prepares(self) -> bool: ...

    def broadcast(self, x: Operand, offset: Expr, lanes: int) -> Expr:
        """One unit of x, in every lane."""

    def weights(self, constants: Operand, offset: Expr, lanes: int) -> Expr:
        """The weights of one unit for `lanes` outputs, stored [lanes][unit]."""

    def step(self, acc: Expr, x: Expr, w: Expr, lanes: int) -> Expr:
        """The accumulator after this step."""


@dataclass(frozen=True)
class _Quads:
    """Four u8 times four s8 into int32. An s8 x is read as x + 128."""

    shift: int
    unit: int = 4
    weight: str = "int8"
    acc: str = "int32"

    @property
    def prepares(self) -> bool:
        return self.shift != 0

    def broadcast(self, x: Operand, offset: Expr, lanes: int) -> Expr:
        dword = x.load(offset, "int32", 1)
        if self.shift:
            dword = dword ^ tirx.IntImm("int32", -0x7F7F7F80)
        return splat(dword, lanes, "int32")

    def weights(self, constants: Operand, offset: Expr, lanes: int) -> Expr:
        return constants.load(offset, "int8", 4 * lanes)


@dataclass(frozen=True)
class Vnni(_Quads):
    """vpdpbusd."""

    def step(self, acc: Expr, x: Expr, w: Expr, lanes: int) -> Expr:
        codes = tirx.reinterpret(f"uint8x{4 * lanes}", x)
        return pure("int32", lanes, "llvm.x86.avx512.vpdpbusd.512", acc, codes, w)


@dataclass(frozen=True)
class NarrowMadd(_Quads):
    """vpmaddubsw, which saturates at int16, for weights small enough that it does not."""

    def step(self, acc: Expr, x: Expr, w: Expr, lanes: int) -> Expr:
        codes = tirx.reinterpret(f"uint8x{4 * lanes}", x)
        name = "llvm.x86.avx512.pmaddubs.w.512" if lanes == 16 else "llvm.x86.avx2.pmadd.ub.sw"
        pairs = pure("int16", 2 * lanes, name, codes, w)
        return acc + _madd(pairs, splat(1, 2 * lanes, "int16"), lanes)


@dataclass(frozen=True)
class Madd:
    """Codes widened to int16, then vpmaddwd: exact for every pair, and for weights of 9 bits."""

    dtype: str
    weight: str = "int8"
    unit: int = 2
    shift: int = 0
    acc: str = "int32"
    prepares: bool = True

    def broadcast(self, x: Operand, offset: Expr, lanes: int) -> Expr:
        pairs = splat(x.load(offset, "int16", 1), lanes, "int16")
        codes = tirx.reinterpret(f"{self.dtype}x{2 * lanes}", pairs)
        return cast("int16", codes, 2 * lanes)

    def weights(self, constants: Operand, offset: Expr, lanes: int) -> Expr:
        codes = constants.load(offset, self.weight, 2 * lanes)
        return codes if self.weight == "int16" else cast("int16", codes, 2 * lanes)

    def step(self, acc: Expr, x: Expr, w: Expr, lanes: int) -> Expr:
        return acc + _madd(x, w, lanes)


def _madd(a: Expr, b: Expr, lanes: int) -> Expr:
    name = "llvm.x86.avx512.pmaddw.d.512" if lanes == 16 else "llvm.x86.avx2.pmadd.wd"
    return pure("int32", lanes, name, a, b)


@dataclass(frozen=True)
class Widen:
    """Codes widened to int32: exact on every CPU."""

    dtype: str
    weight: str = "int8"
    unit: int = 1
    shift: int = 0
    acc: str = "int32"
    prepares: bool = False

    def broadcast(self, x: Operand, offset: Expr, lanes: int) -> Expr:
        return splat(x.widen(offset, self.dtype, 1, "int32"), lanes, "int32")

    def weights(self, constants: Operand, offset: Expr, lanes: int) -> Expr:
        return constants.widen(offset, self.weight, lanes, "int32")

    def step(self, acc: Expr, x: Expr, w: Expr, lanes: int) -> Expr:
        return acc + x * w


@dataclass(frozen=True)
class Floats:
    """float32, fused where the CPU can."""

    fused: bool
    unit: int = 1
    shift: int = 0
    weight: str = "float32"
    acc: str = "float32"
    prepares: bool = False

    def broadcast(self, x: Operand, offset: Expr, lanes: int) -> Expr:
        return splat(x.load(offset, "float32", 1), lanes)

    def weights(self, constants: Operand, offset: Expr, lanes: int) -> Expr:
        return constants.load(offset, "float32", lanes)

    def step(self, acc: Expr, x: Expr, w: Expr, lanes: int) -> Expr:
        return fma(x, w, acc, lanes) if self.fused else acc + x * w


def mac_for(dtype: str, weight: NDArray[np.generic], isa: Isa) -> Mac:
    """The row for x of `dtype` times these weights on `isa`."""
    if dtype == "float32":
        return Floats(isa.fma)
    shift = 128 if dtype == "int8" else 0
    if weight.dtype == np.int16:
        return Madd(dtype, "int16") if isa.madd else Widen(dtype, "int16")
    if isa.vnni and isa.lanes == 16:
        return Vnni(shift)
    if not isa.madd:
        return Widen(dtype)
    narrow = int(weight.min()) >= -_NARROW and int(weight.max()) <= _NARROW
    return NarrowMadd(shift) if narrow else Madd(dtype)
