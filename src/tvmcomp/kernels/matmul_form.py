"""How a product's operands are read: as dwords of a few consecutive k, one row per instruction set.

    acc[m][n] += sum_j a[m][unit*s + j] * b[unit*s + j][n]      s: a step, j < unit: the parts of a dword

b is packed to [vector of columns][step][lane] dwords, parts past K are zero; a's dwords are broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from tvm import tirx
from tvm.ir import Expr

from tvmcomp.kernels.vector import Isa, Operand, cast, fma, pure, splat

__all__ = ["Form", "Side", "form_for"]


@dataclass(frozen=True)
class Side:
    """One operand as stored: its dtype, and its zero point at run time (None for floats)."""

    dtype: str
    zero: Expr | None


@dataclass(frozen=True)
class _Vnni:
    """vpdpbusd: bytes as they are; the top bit flipped makes an s8 of a u8 and the other way round.

    What that and the zero points add to a sum is taken off again: `corrects`.
    """

    unit: int = 4
    part: str = "uint8"
    acc: str = "int32"
    corrects: bool = True

    def in_place(self, dtype: str) -> bool:
        return dtype == "uint8"

    def parts(self, data: Operand, offset: Expr, side: Side, count: int, *, left: bool) -> Expr:
        codes = data.load(offset, "uint8", count)
        natural = "uint8" if left else "int8"
        return codes if side.dtype == natural else codes ^ splat(128, count, "uint8")

    def step(self, acc: Expr, a: Expr, b: Expr, lanes: int) -> Expr:
        left = tirx.reinterpret(f"uint8x{4 * lanes}", a)
        right = tirx.reinterpret(f"int8x{4 * lanes}", b)
        return pure("int32", lanes, "llvm.x86.avx512.vpdpbusd.512", acc, left, right)


@dataclass(frozen=True)
class _Codes:
    """Codes less their zero point in 16 or 32 bits: no sum needs a correction."""

    unit: int
    part: str
    acc: str = "int32"
    corrects: bool = False

    def in_place(self, dtype: str) -> bool:
        return False

    def parts(self, data: Operand, offset: Expr, side: Side, count: int, *, left: bool) -> Expr:
        assert side.zero is not None
        zero = tirx.Cast(self.part, side.zero)
        codes = cast(self.part, data.load(offset, side.dtype, count), count)
        return codes - splat(zero, count)

    def step(self, acc: Expr, a: Expr, b: Expr, lanes: int) -> Expr:
        if self.unit == 1:
            return acc + a * b
        left, right = (tirx.reinterpret(f"int16x{2 * lanes}", side) for side in (a, b))
        name = "llvm.x86.avx512.pmaddw.d.512" if lanes == 16 else "llvm.x86.avx2.pmadd.wd"
        return acc + pure("int32", lanes, name, left, right)


@dataclass(frozen=True)
class _Floats:
    """float32, fused where the CPU can."""

    fused: bool
    unit: int = 1
    part: str = "float32"
    acc: str = "float32"
    corrects: bool = False

    def in_place(self, dtype: str) -> bool:
        return True

    def parts(self, data: Operand, offset: Expr, side: Side, count: int, *, left: bool) -> Expr:
        return data.load(offset, "float32", count)

    def step(self, acc: Expr, a: Expr, b: Expr, lanes: int) -> Expr:
        return fma(a, b, acc, lanes) if self.fused else acc + a * b


Form: TypeAlias = "_Vnni | _Codes | _Floats"


def form_for(dtype: str, isa: Isa) -> Form:
    """The row for operands of `dtype` on `isa`."""
    if dtype == "float32":
        return _Floats(isa.fma)
    if isa.vnni and isa.lanes == 16:
        return _Vnni()
    return _Codes(2, "int16") if isa.madd else _Codes(1, "int32")
