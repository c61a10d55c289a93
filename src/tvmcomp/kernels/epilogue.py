"""From accumulators to stored outputs: scale, bias, residual, rounding, clip, table.

int:    y = table[clip(rint(fma(residual, residual_scale, fma(acc, multiplier, bias))) + zero)]
        y = clip(fma(acc, multiplier, bias) + residual)           float32 y of an integer sum
float:  y = clip(acc + residual)                                  (acc started at the bias)
dynamic: y = clip(fma(acc - zero_point * sum, scale * weight_scale, bias) + residual)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.kernels.pack import parts, places
from tvmcomp.kernels.spec import Epilogue, Spec
from tvmcomp.kernels.vector import (
    Isa,
    Operand,
    add_saturated,
    byte_size,
    cast,
    fma,
    i64,
    pure,
    round_clip,
    splat,
)

__all__ = ["Block", "Operands", "Outputs", "finish", "store_codes", "store_floats"]

_TABLE_CODES = 128  # entries one vpermi2b reaches
_WORD = 1 << 15  # beyond any code less its zero point


@dataclass(frozen=True)
class Operands:
    """The kernel's tensors; `r` is None without a residual, `scale` and `zero` unless x has them at run time."""

    x: Operand
    constants: Operand
    y: Operand
    r: Operand | None = None
    scale: Operand | None = None
    zero: Operand | None = None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where a block of outputs goes, vectors of `lanes` elements of a few pixels.

    y:        where the outputs lie, without the offset of the pixel,
    y_pixels: which is this.
    counts:   elements to store per vector: all lanes but for a last one without room.
    """

    lanes: int
    y: Expr
    y_pixels: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Block(Outputs):
    """One block of outputs of a convolution: `acc(p, h)` is pixel p's vector h.

    scales:                       where the scales of vector 0 lie.
    r, s and r_pixels, s_pixels:  where the residuals and scales of x do, as y.
    """

    acc: Callable[[int, int], Expr]
    scales: Expr
    r: Expr
    s: Expr
    r_pixels: tuple[int, ...]
    s_pixels: tuple[int, ...]


def finish(spec: Spec, isa: Isa, operands: Operands, block: Block) -> None:
    """Write the block's outputs."""
    if spec.dtype == "float32":
        store_floats(
            spec.epilogue, operands.y, block, _with_residual(spec, operands, block, block.acc)
        )
        return
    if spec.epilogue.dynamic:
        value = _dynamic(spec, operands, block)
        store_floats(spec.epilogue, operands.y, block, _with_residual(spec, operands, block, value))
        return
    value = _scaled(spec, operands, block)
    if spec.epilogue.dtype == "float32":
        store_floats(spec.epilogue, operands.y, block, _with_residual(spec, operands, block, value))
        return
    lookup = _table(spec, operands.constants) if spec.epilogue.table else None
    store_codes(spec.epilogue, isa, operands.y, block, value, spec.zero, lookup)


def store_codes(
    epilogue: Epilogue,
    isa: Isa,
    y: Operand,
    block: Outputs,
    value: Callable[[int, int], Expr],
    zero: int | Expr,
    lookup: Callable[[Expr], Expr] | None = None,
) -> None:
    """Round, clip and store `value(pixel, vector)`, float32, as codes of zero point `zero`, an int32.

    `lookup` maps codes, where isa has VNNI.
    """
    if isa.vnni and block.lanes == 16:
        _store_packed(epilogue, y, block, value, zero, lookup)
        return
    low, high = _bounds(epilogue)
    for p, h, offset in _places(epilogue, block):
        codes = round_clip(value(p, h), low, high, block.lanes, epilogue.dtype, zero)
        _store(y, block.y + i64(offset), codes, epilogue.dtype, block.lanes, block.counts[h])


def _places(epilogue: Epilogue, block: Outputs) -> list[tuple[int, int, int]]:
    """(pixel, vector, byte offset from block.y) in storing order."""
    size = block.lanes * byte_size(epilogue.dtype)
    return [
        (p, h, pixel + h * size)
        for p, pixel in enumerate(block.y_pixels)
        for h in range(len(block.counts))
    ]


def _bounds(epilogue: Epilogue) -> tuple[float, float]:
    info = np.iinfo(epilogue.dtype)
    low, high = epilogue.low, epilogue.high
    return (info.min if low is None else low, info.max if high is None else high)


def _residual_offset(spec: Spec, block: Block, p: int, h: int) -> Expr:
    size = spec.lanes * byte_size(spec.epilogue.residual or "")
    return block.r + i64(block.r_pixels[p] + h * size)


def _with_residual(
    spec: Spec, operands: Operands, block: Block, value: Callable[[int, int], Expr]
) -> Callable[[int, int], Expr]:
    r = operands.r
    if r is None or spec.epilogue.residual != "float32":
        return value
    return lambda p, h: (
        value(p, h) + r.load(_residual_offset(spec, block, p, h), "float32", block.lanes)
    )


def store_floats(
    epilogue: Epilogue, y: Operand, block: Outputs, value: Callable[[int, int], Expr]
) -> None:
    """Clip and store `value(pixel, vector)`."""
    low, high, lanes = epilogue.low, epilogue.high, block.lanes
    for p, h, offset in _places(epilogue, block):
        real = value(p, h)
        # NaN fails both comparisons and stays.
        if low is not None:
            real = T.bind(real)
            real = tirx.Select(real < splat(low, lanes), splat(low, lanes), real)
        if high is not None:
            real = T.bind(real)
            real = tirx.Select(real > splat(high, lanes), splat(high, lanes), real)
        _store(y, block.y + i64(offset), real, "float32", lanes, block.counts[h])


def _row(spec: Spec, operands: Operands, block: Block, part: int, dtype: str) -> list[Expr]:
    """Part number `part` of the constants of each vector."""
    size = spec.lanes * 4
    offsets = [(h * parts(spec) + part) * size for h in range(len(block.counts))]
    constants = operands.constants
    return [
        T.bind(constants.load(block.scales + i64(offset), dtype, spec.lanes)) for offset in offsets
    ]


def _dynamic(spec: Spec, operands: Operands, block: Block) -> Callable[[int, int], Expr]:
    """(p, h) -> the float32 value before the residual, for a scale and zero point per pixel or of all of x."""
    lanes = spec.lanes
    factors, biases = (_row(spec, operands, block, part, "float32") for part in (0, 1))
    sums = _row(spec, operands, block, 2, "int32")
    scales, zeros = operands.scale, operands.zero
    assert scales is not None
    assert zeros is not None

    @cache
    def grid(offset: int) -> tuple[Expr, Expr]:
        at = block.s + i64(offset)
        # x is read higher by the shift, and so is its zero point.
        zero = zeros.load(at, "int32", 1) + splat(spec.mac.shift, 1, "int32")
        scale = T.bind(splat(scales.load(at, "float32", 1), lanes))
        return scale, T.bind(splat(zero, lanes, "int32"))

    @cache
    def scaled(offset: int, h: int) -> tuple[Expr, Expr]:
        scale, zero = grid(offset)
        return T.bind(scale * factors[h]), T.bind(zero * sums[h])

    def value(p: int, h: int) -> Expr:
        scale, correction = scaled(block.s_pixels[p], h)
        total = cast("float32", block.acc(p, h) - correction, lanes)
        return T.bind(fma(total, scale, biases[h], lanes))

    return value


def _scaled(spec: Spec, operands: Operands, block: Block) -> Callable[[int, int], Expr]:
    """(p, h) -> the float32 value before rounding."""
    lanes, constants = spec.lanes, operands.constants
    multiplier, bias = (_row(spec, operands, block, part, "float32") for part in (0, 1))
    residual, r = spec.epilogue.residual, operands.r
    if residual is None or residual == "float32" or r is None:
        return lambda p, h: T.bind(
            fma(cast("float32", block.acc(p, h), lanes), multiplier[h], bias[h], lanes)
        )
    scale = T.bind(splat(constants.load(i64(places(spec).residual_scale), "float32", 1), lanes))

    def value(p: int, h: int) -> Expr:
        first = fma(cast("float32", block.acc(p, h), lanes), multiplier[h], bias[h], lanes)
        codes = r.widen(_residual_offset(spec, block, p, h), residual, lanes)
        return T.bind(fma(codes, scale, first, lanes))

    return value


def _store_packed(
    epilogue: Epilogue,
    y: Operand,
    block: Outputs,
    value: Callable[[int, int], Expr],
    zero: int | Expr,
    lookup: Callable[[Expr], Expr] | None,
) -> None:
    """Four vectors of int32 become one of bytes: the narrowing instructions take two vectors at a time."""

    def rounded(p: int, h: int) -> Expr:
        exact = value(p, h)
        if epilogue.wide:
            # Here the bounds only keep the conversion in range: `_narrow` saturates.
            return T.bind(round_clip(exact, -_WORD, _WORD, block.lanes))
        return T.bind(pure("int32", 16, "llvm.lrint.v16i32.v16f32", exact))

    pending = _places(epilogue, block)
    for start in range(0, len(pending), 4):
        group = pending[start : start + 4]
        quads = [rounded(p, h) for p, h, _ in group]
        codes = _narrow(epilogue.dtype, quads + quads[-1:] * (4 - len(quads)), zero)
        codes = _clip_bytes(epilogue, codes)
        if lookup is not None:
            codes = lookup(codes)
        _store_quads(y, block, codes, [(h, offset) for _, h, offset in group])


def _narrow(dtype: str, quads: Sequence[Expr], zero: int | Expr) -> Expr:
    """Four int32x16, plus `zero`, to 64 codes in order, saturated."""
    low, high = (
        add_saturated(pure("int16", 32, "llvm.x86.avx512.packssdw.512", *quads[i : i + 2]), zero)
        for i in (0, 2)
    )
    name = "packuswb" if dtype == "uint8" else "packsswb"
    mixed = tirx.reinterpret(
        "int32x16", pure("uint8", 64, f"llvm.x86.avx512.{name}.512", low, high)
    )
    # Each 16-byte part holds four outputs of each vector.
    order = [tirx.IntImm("int32", 4 * (i % 4) + i // 4) for i in range(16)]
    indices = tirx.Shuffle(order, [tirx.IntImm("int32", i) for i in range(16)])
    return T.bind(pure("int32", 16, "llvm.x86.avx512.permvar.si.512", mixed, indices))


def _clip_bytes(epilogue: Epilogue, codes: Expr) -> Expr:
    """Tighter bounds than the dtype's own."""
    dtype, low, high = epilogue.dtype, epilogue.low, epilogue.high
    if low is None and high is None:
        return codes
    value = tirx.reinterpret(f"{dtype}x64", codes)
    if low is not None:
        value = tirx.Max(value, splat(int(low), 64, dtype))
    if high is not None:
        value = tirx.Min(value, splat(int(high), 64, dtype))
    return T.bind(tirx.reinterpret("int32x16", value))


def _table(spec: Spec, constants: Operand) -> Callable[[Expr], Expr]:
    """codes -> table[codes - dtype.min]: two look-ups of 128 entries, and the top bit chooses."""
    start = places(spec).table
    rows = [T.bind(constants.load(i64(start + 64 * i), "uint8", 64)) for i in range(4)]
    flip = 0 if spec.epilogue.dtype == "uint8" else 128

    def half(index: Expr, first: Expr, second: Expr) -> Expr:
        return pure("uint8", 64, "llvm.x86.avx512.vpermi2var.qi.512", first, index, second)

    def lookup(codes: Expr) -> Expr:
        index = T.bind(tirx.reinterpret("uint8x64", codes) ^ splat(flip, 64, "uint8"))
        lower, upper = half(index, *rows[:2]), half(index, *rows[2:])
        found = tirx.Select(index < splat(_TABLE_CODES, 64, "uint8"), lower, upper)
        return T.bind(tirx.reinterpret("int32x16", found))

    return lookup


def _store_quads(y: Operand, block: Outputs, codes: Expr, vectors: list[tuple[int, int]]) -> None:
    """Store the 16-byte parts of `codes`, one per (vector, offset), neighbours in y together."""
    whole = [block.counts[h] == 16 for h, _ in vectors]
    offsets = [offset for _, offset in vectors]

    def together(start: int, span: int) -> bool:
        run = range(offsets[start], offsets[start] + 16 * span, 16)
        part = slice(start, start + span)
        return start % span == 0 and all(whole[part]) and offsets[part] == list(run)

    start = 0
    while start < len(vectors):
        span = next((n for n in (4, 2) if together(start, n)), 1)
        part = _extract(codes, "int32", 16, 4 * start, 4 * span)
        at = block.y + i64(offsets[start])
        if whole[start]:
            y.store(at, part, "int32", 4 * span)
        else:
            count = block.counts[vectors[start][0]]
            _store(y, at, tirx.reinterpret("uint8x16", part), "uint8", 16, count)
        start += span


def _extract(value: Expr, dtype: str, lanes: int, start: int, count: int) -> Expr:
    """Elements [start, start + count) of a vector; start is a multiple of count."""
    if count == lanes:
        return value
    if count == 1:
        return tirx.Shuffle([value], [tirx.IntImm("int32", start)])
    letter = f"{'f' if dtype == 'float32' else 'i'}{8 * byte_size(dtype)}"
    name = f"llvm.vector.extract.v{count}{letter}.v{lanes}{letter}"
    return pure(dtype, count, name, value, i64(start))


def _store(y: Operand, offset: Expr, value: Expr, dtype: str, lanes: int, count: int) -> None:
    """Store the first `count` of `lanes` elements, in pieces of a power of two."""
    if count == lanes:
        y.store(offset, value, dtype, lanes)
        return
    value, start = T.bind(value), 0
    for bit in reversed(range(count.bit_length())):
        if count >> bit & 1:
            size = 1 << bit
            piece = _extract(value, dtype, lanes, start, size)
            y.store(offset + i64(start * byte_size(dtype)), piece, dtype, size)
            start += size
