"""IntLayerNorm: exact sums of a row's codes and squares, then one fused multiply-add per element."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.graph.layers import IntLayerNorm, Layer, TensorSpec
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.reduce import Accumulator, across, each_chunk, inside
from tvmcomp.kernels.rows import (
    halo_code,
    kernel_key,
    pack_constants,
    qparams_of,
    same_dims,
    split_rows,
)
from tvmcomp.kernels.vector import (
    Isa,
    Operand,
    build_func,
    cast,
    each,
    each_row,
    each_segment,
    fma,
    i64,
    pure,
    round_clip,
    splat,
)

__all__ = ["LONGEST_ROW", "build_layer_norm"]

# Up to here sums of code * (code - 128) stay in int32, and d is exact in float32.
LONGEST_ROW = 1 << 16


def build_layer_norm(
    layer: Layer, tensors: Mapping[str, TensorSpec], layouts: Mapping[str, Layout], isa: Isa
) -> Kernel | None:
    """Rows of channels, one after the other; constants: multiplier, then bias."""
    if not isinstance(layer, IntLayerNorm):
        return None
    source, spec = tensors[layer.inputs[0]], tensors[layer.output]
    x, y = layouts[layer.inputs[0]], layouts[layer.output]
    if not same_dims(x, y) or x.channels > LONGEST_ROW:
        return None
    x, y = split_rows([x, y])
    zero, zero_y = qparams_of(source).zero_point, qparams_of(spec).zero_point
    bounds = layer.low, layer.high
    bias_at = -(-4 * x.channels // 64) * 64

    def body(data: Operand, constants: Operand, out: Operand) -> None:
        write_halo(out, y, halo_code(spec))

        def row(n: Expr, h: Expr) -> None:
            base_x, base_y = (T.bind(place.offset(n, h, i64(0))) for place in (x, y))

            def pixel(w: Expr) -> None:
                at, to = T.bind(base_x + w * i64(x.pixel)), T.bind(base_y + w * i64(y.pixel))
                s1, s2 = _sums(data, at, x.channels, source.dtype, isa)
                scale, offset, ratio = _statistics(layer, s1, s2, x.channels, zero)

                def segment(start: Expr, lanes: int) -> None:
                    code = data.widen(at + start, source.dtype, lanes)
                    # Exact, so it does not matter whether LLVM fuses it.
                    d = T.bind(code * splat(scale, lanes) + splat(offset, lanes))
                    multiplier = constants.load(start * i64(4), "float32", lanes)
                    bias = constants.load(start * i64(4) + i64(bias_at), "float32", lanes)
                    scaled = T.bind(d * splat(ratio, lanes))
                    value = fma(scaled, multiplier, bias, lanes)
                    codes = round_clip(value, *bounds, lanes, spec.dtype, zero_y)
                    out.store(to + start, codes, spec.dtype, lanes)

                each_segment(x.channels, isa.bytes, y.pitch, segment)

            each(y.width, pixel)

        each_row(y, row)

    baked = (layer.epsilon, layer.centered, layer.low, layer.high, zero)
    key = kernel_key("layer_norm", isa, x, y, source.dtype, spec.dtype, baked, halo_code(spec))
    func = build_func("layer_norm", ("x", "constants", "y"), body)
    blob = pack_constants(layer.multiplier, layer.bias)
    return Kernel(key, func, "layer_norm", isa.name, constants=blob)


def _statistics(
    layer: IntLayerNorm, s1: Expr, s2: Expr, count: int, zero: int
) -> tuple[Expr, Expr, Expr]:
    """(scale, offset, r): d = x * scale + offset."""

    def real(value: Expr) -> Expr:
        return tirx.Cast("float32", value)

    if layer.centered:
        v = s2 * i64(count) - s1 * s1
        scale, offset = tirx.FloatImm("float32", count), T.bind(real(i64(0) - s1))
    else:
        v = s2 - s1 * i64(2 * zero) + i64(count * zero * zero)
        scale, offset = tirx.FloatImm("float32", 1.0), tirx.FloatImm("float32", -zero)
    spread = T.bind(real(T.bind(v)) + tirx.FloatImm("float32", layer.epsilon))
    root = T.bind(pure("float32", 1, "llvm.sqrt.f32", spread))
    return scale, offset, T.bind(tirx.FloatImm("float32", 1.0) / root)


def _sums(data: Operand, at: Expr, count: int, dtype: str, isa: Isa) -> tuple[Expr, Expr]:
    """int64 sums of the codes and of their squares."""
    step = _dot if isa.vnni and isa.lanes == 16 else _pairs if isa.madd else _plain
    return step(data, at, count, dtype, isa)


def _long(value: Expr) -> Expr:
    return T.bind(tirx.Cast("int64", T.bind(value)))


def _dot(data: Operand, at: Expr, count: int, dtype: str, isa: Isa) -> tuple[Expr, Expr]:
    """vpdpbusd wants unsigned times signed: u = s + 128 has sum(u * s) = sum(s * s) + 128 * sum(s)."""
    lanes = isa.lanes
    total, products = Accumulator(0, lanes), Accumulator(0, lanes)
    name = "llvm.x86.avx512.vpdpbusd.512"
    flip = splat(128, 4 * lanes, "uint8")

    def chunk(start: Expr, valid: int) -> None:
        raw = T.bind(data.load(at + start, "uint8", 4 * lanes))
        neutral = 0 if dtype == "uint8" else 128
        u = raw if dtype == "uint8" else T.bind(raw ^ flip)
        u = T.bind(inside(u, valid, 4 * lanes, "uint8", 0))
        s = tirx.reinterpret(f"int8x{4 * lanes}", raw ^ flip if neutral == 0 else raw)
        ones = splat(1, 4 * lanes, "int8")
        total.set(pure("int32", lanes, name, total.value, u, ones))
        products.set(pure("int32", lanes, name, products.value, u, T.bind(s)))

    each_chunk(count, 4 * lanes, chunk)
    u_sum, product = (_long(across("add", a.value, "int32", lanes)) for a in (total, products))
    if dtype == "uint8":
        # sum(u * (u - 128)) = sum(u * u) - 128 * sum(u)
        return u_sum, T.bind(product + u_sum * i64(128))
    s_sum = T.bind(u_sum - i64(128 * count))
    return s_sum, T.bind(product - s_sum * i64(128))


def _pairs(data: Operand, at: Expr, count: int, dtype: str, isa: Isa) -> tuple[Expr, Expr]:
    """Codes as int16, multiplied and added in pairs; shifted so that squares stay small."""
    lanes = isa.lanes
    shift = 128 if dtype == "uint8" else 0
    total, squares = Accumulator(0, lanes), Accumulator(0, lanes)
    name = "llvm.x86.avx512.pmaddw.d.512" if lanes == 16 else "llvm.x86.avx2.pmadd.wd"

    def chunk(start: Expr, valid: int) -> None:
        code = cast("int16", data.load(at + start, dtype, 2 * lanes), 2 * lanes)
        code = code - splat(shift, 2 * lanes, "int16")
        code = T.bind(inside(code, valid, 2 * lanes, "int16", 0))
        ones = splat(1, 2 * lanes, "int16")
        total.set(total.value + pure("int32", lanes, name, code, ones))
        squares.set(squares.value + pure("int32", lanes, name, code, code))

    each_chunk(count, 2 * lanes, chunk)
    return _unshifted(total, squares, count, shift, lanes)


def _plain(data: Operand, at: Expr, count: int, dtype: str, isa: Isa) -> tuple[Expr, Expr]:
    """Codes as int32, shifted so that squares stay small."""
    lanes = isa.lanes
    shift = 128 if dtype == "uint8" else 0
    total, squares = Accumulator(0, lanes), Accumulator(0, lanes)

    def chunk(start: Expr, valid: int) -> None:
        code = data.widen(at + start, dtype, lanes, "int32") - splat(shift, lanes, "int32")
        code = T.bind(inside(code, valid, lanes, "int32", 0))
        total.set(total.value + code)
        squares.set(squares.value + code * code)

    each_chunk(count, lanes, chunk)
    return _unshifted(total, squares, count, shift, lanes)


def _unshifted(
    total: Accumulator, squares: Accumulator, count: int, shift: int, lanes: int
) -> tuple[Expr, Expr]:
    """sum(c), sum(c * c) from those of c - shift."""
    t, s = (_long(across("add", a.value, "int32", lanes)) for a in (total, squares))
    return (
        T.bind(t + i64(shift * count)),
        T.bind(s + t * i64(2 * shift) + i64(shift * shift * count)),
    )
