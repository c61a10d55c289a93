"""Building blocks of every kernel emitter: the ISA row, operands, loops, float32 rounding.

Everything is plain vector IR (casts, selects, `llvm.fma`, `llvm.lrint`), which LLVM lowers well for
any CPU; x86 intrinsics stay in the emitters where they win. For use inside `build_func`'s body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from tvmcomp.kernels.layout import Layout

__all__ = [
    "GENERIC",
    "Isa",
    "Operand",
    "add_saturated",
    "build_func",
    "byte_size",
    "cast",
    "each",
    "each_row",
    "each_segment",
    "fma",
    "i64",
    "isa_for",
    "pure",
    "round_clip",
    "segments",
    "splat",
]

# Below this many bytes of output, waking the thread pool costs more than the work.
_PARALLEL_BYTES = 16 * 1024


@dataclass(frozen=True)
class Isa:
    """One row of the kernel table: what a generator may use.

    lanes: dwords in the widest vector; vnni: vpdpbusd on `lanes` dwords; vbmi: vpermb / vpermi2b;
    fma: a hardware float32 fma (without it `fma` is a slow call); madd: vpmaddubsw and vpmaddwd.
    """

    name: str
    lanes: int
    vnni: bool = False
    vbmi: bool = False
    fma: bool = False
    madd: bool = False

    @property
    def bytes(self) -> int:
        """Bytes in the widest vector."""
        return 4 * self.lanes


GENERIC = Isa("generic", 4)


def isa_for(features: frozenset[str]) -> Isa:
    """The row for a CPU with these features, named as LLVM ("avx512vnni") or Linux does."""
    have = {feature.replace("_", "").replace("-", "").replace(".", "") for feature in features}
    if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= have:
        vnni = "avx512vnni" in have
        name = "avx512-vnni" if vnni else "avx512"
        return Isa(name, 16, vnni=vnni, vbmi="avx512vbmi" in have, fma=True, madd=True)
    if {"avx2", "fma"} <= have:
        return Isa("avx2", 8, fma=True, madd=True)
    # aarch64 always has a vector fma; "neon" / "asimd" names it.
    return Isa("generic", 4, fma=bool(have & {"fma", "neon", "asimd"}))


def byte_size(dtype: str) -> int:
    """Bytes of one element."""
    return {"uint8": 1, "int8": 1, "int16": 2, "uint16": 2, "int64": 8}.get(dtype, 4)


def i64(value: int) -> tirx.IntImm:
    """An int64 constant: all addresses and loop variables are int64."""
    return tirx.IntImm("int64", int(value))


def _vector(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def splat(value: float | Expr, lanes: int, dtype: str = "float32") -> Expr:
    """`value` in every lane."""
    if isinstance(value, int | float):
        make = tirx.FloatImm if dtype.startswith("float") else tirx.IntImm
        value = make(dtype, float(value) if dtype.startswith("float") else int(value))
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def cast(dtype: str, value: Expr, lanes: int) -> Expr:
    """Lane-wise conversion."""
    return tirx.Cast(_vector(dtype, lanes), value)


def pure(dtype: str, lanes: int, name: str, *args: Expr) -> Expr:
    """An LLVM intrinsic without side effects."""
    return tirx.call_llvm_pure_intrin(_vector(dtype, lanes), name, *args)


def _suffix(letter: str, bits: int, lanes: int) -> str:
    return f"{letter}{bits}" if lanes == 1 else f"v{lanes}{letter}{bits}"


def fma(a: Expr, b: Expr, c: Expr, lanes: int) -> Expr:
    """float32 a*b + c with one rounding; where the CPU has no fma, LLVM calls libm's, which is exact."""
    return pure("float32", lanes, f"llvm.fma.{_suffix('f', 32, lanes)}", a, b, c)


def round_clip(
    value: Expr,
    low: float | Expr,
    high: float | Expr,
    lanes: int,
    dtype: str | None = None,
    zero: int | Expr = 0,
) -> Expr:
    """clip(rint(value) + zero, low, high), half to even, as int32 lanes or as `dtype`; NaN becomes `low`.

    `low`, `high` and the int32 `zero` are integers, so clipping first is the same and keeps the conversion in
    range.
    """
    constant = isinstance(zero, int)
    if not (constant and zero == 0):
        real = float(zero) if constant else cast("float32", zero, 1)
        low, high = low - real, high - real
    # Max is (value > low ? value : low), so NaN becomes low.
    value = T.bind(tirx.Max(T.bind(value), splat(low, lanes)))
    value = T.bind(tirx.Min(value, splat(high, lanes)))
    name = f"llvm.lrint.{_suffix('i', 32, lanes)}.{_suffix('f', 32, lanes)}"
    codes = pure("int32", lanes, name, value)
    if not (constant and zero == 0):
        codes = codes + splat(zero, lanes, "int32")
    return codes if dtype is None else cast(dtype, codes, lanes)


def add_saturated(words: Expr, zero: int | Expr) -> Expr:
    """32 int16 sums, saturated; `zero` is int32."""
    if isinstance(zero, int) and zero == 0:
        return words
    other = splat(zero if isinstance(zero, int) else cast("int16", zero, 1), 32, "int16")
    return T.bind(pure("int16", 32, "llvm.sadd.sat.v32i16", words, other))


@dataclass(frozen=True)
class Operand:
    """A kernel argument: a byte buffer and where its tensor starts, from which offsets count."""

    buffer: tirx.Buffer
    base: Expr

    def load(self, offset: Expr | int, dtype: str, lanes: int) -> Expr:
        """`lanes` consecutive elements; 8-bit ones come as they are, widen with `cast`."""
        count = lanes * byte_size(dtype)
        start = self.base + offset
        data = tirx.BufferLoad(
            self.buffer, [start if count == 1 else tirx.Ramp(start, i64(1), count)]
        )
        return data if dtype == "uint8" else tirx.reinterpret(_vector(dtype, lanes), data)

    def widen(self, offset: Expr | int, dtype: str, lanes: int, to: str = "float32") -> Expr:
        """8-bit codes as int32 or float32 lanes."""
        wide = cast("int32", self.load(offset, dtype, lanes), lanes)
        return wide if to == "int32" else cast(to, wide, lanes)

    def store(self, offset: Expr | int, value: Expr, dtype: str, lanes: int) -> None:
        """Store `lanes` elements of `dtype`."""
        count = lanes * byte_size(dtype)
        start = self.base + offset
        if dtype != "uint8":
            value = tirx.reinterpret(_vector("uint8", count), value)
        T.buffer_store(
            self.buffer, value, [start if count == 1 else tirx.Ramp(start, i64(1), count)]
        )

    def address(self, offset: Expr | int, mode: str = "r") -> Expr:
        """A pointer, for prefetches and for intrinsics that take one."""
        return self.buffer.access_ptr(mode, offset=self.base + offset)


def build_func(name: str, operands: Sequence[str], body: Callable[..., None]) -> tirx.PrimFunc:
    """func(a, a_offset, b, b_offset, ...) with `body(*[Operand])` inside."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"tirx.noalias": True})
        arguments = []
        for operand in operands:
            size = tirx.Var(f"{operand}_size", "int64")
            buffer = T.arg(operand, T.buffer((size,), "uint8", align=64))
            arguments.append(Operand(buffer, T.arg(f"{operand}_offset", T.int64())))
        body(*arguments)
    return builder.get()


def each(count: int, body: Callable[[Expr], None], *, parallel: bool = False) -> None:
    """for i in range(count): body(i)."""
    if count == 1:
        body(i64(0))
    elif count > 1:
        kind = T.parallel if parallel else T.serial
        with kind(i64(0), i64(count)) as index:
            body(index)


def each_row(layout: Layout, body: Callable[[Expr, Expr], None], rows: int = 1) -> None:
    """body(n, h) for every row of `layout`, shared among the threads unless the tensor is small.

    With `rows`, h is the first of a block of that many rows; the last block is moved back to fit.
    """
    blocks = -(-layout.height // rows)
    parallel = layout.nbytes >= _PARALLEL_BYTES

    def first(block: Expr) -> Expr:
        if rows == 1:
            return block
        start = block * i64(rows)
        return T.bind(
            start if layout.height % rows == 0 else tirx.Min(start, i64(layout.height - rows))
        )

    def row(index: Expr) -> None:
        if layout.batch == 1:
            body(i64(0), first(index))
        elif blocks == 1:
            body(index, first(i64(0)))
        else:
            count = i64(blocks)
            body(T.bind(tirx.FloorDiv(index, count)), first(T.bind(tirx.FloorMod(index, count))))

    each(layout.batch * blocks, row, parallel=parallel)


def segments(count: int, width: int, room: int) -> tuple[tuple[int, int], ...]:
    """Cut `count` elements into (start, lanes): stores of `width`, then a tail within `room`.

    A tail is one power of two: past `count` if `room` allows, else overlapping the elements before
    it; only where there are fewer elements than that is it several pieces.
    """
    full = count - count % width
    cuts = [(start, width) for start in range(0, full, width)]
    rest = count - full
    if rest:
        lanes = 1 << (rest - 1).bit_length()
        if full + lanes <= room:
            cuts.append((full, lanes))
        elif lanes <= count:
            cuts.append((count - lanes, lanes))
        else:
            start = full
            for bit in reversed(range(rest.bit_length())):
                if rest >> bit & 1:
                    cuts.append((start, 1 << bit))
                    start += 1 << bit
    return tuple(cuts)


def each_segment(count: int, width: int, room: int, body: Callable[[Expr, int], None]) -> None:
    """body(start, lanes) for every cut of `segments`: a loop over full vectors, then the tail."""
    cuts = segments(count, width, room)
    full = count // width
    if full > 1:
        each(full, lambda index: body(T.bind(index * i64(width)), width))
        cuts = cuts[full:]
    for start, lanes in cuts:
        body(i64(start), lanes)
