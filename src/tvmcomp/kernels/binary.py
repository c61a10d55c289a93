"""IntAdd, IntMul and IntAffine: two code tensors, or one and constants, in; one out."""

from __future__ import annotations

from collections.abc import Mapping

from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.graph.layers import IntAdd, IntAffine, IntMul, Layer, TensorSpec
from tvmcomp.kernels.broadcast import Broadcast, each_broadcast
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.rows import (
    dims,
    each_vector,
    halo_code,
    kernel_key,
    pack_constants,
    qparams_of,
    same_dims,
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
    round_clip,
    splat,
)

__all__ = ["build_add", "build_affine", "build_mul"]

Tensors = Mapping[str, TensorSpec]
Layouts = Mapping[str, Layout]


def build_add(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """Sum of two tensors, each with its own scale, the second perhaps of a smaller shape."""
    if not isinstance(layer, IntAdd):
        return None
    names = (*layer.inputs, layer.output)
    types = [tensors[name].dtype for name in names]
    a, b, y = (layouts[name] for name in names)
    small = Broadcast.of(tensors[names[1]].shape, tensors[names[2]].shape, b)
    if not same_dims(a, y) or small is None:
        return None
    zeros = [qparams_of(tensors[name]).zero_point for name in names]
    bounds = layer.low, layer.high

    def finish(out: Operand, to: Expr, left: Expr, right: Expr, lanes: int) -> None:
        inner = T.bind(_real(right, zeros[1], lanes) * splat(layer.scale_b, lanes))
        value = fma(_real(left, zeros[0], lanes), splat(layer.scale_a, lanes), inner, lanes)
        out.store(to, round_clip(value, *bounds, lanes, types[2], zeros[2]), types[2], lanes)

    def body(left: Operand, right: Operand, out: Operand) -> None:
        write_halo(out, y, zeros[2])

        def vector(to: Expr, at: list[Expr], lanes: int) -> None:
            codes = (left.load(at[0], types[0], lanes), right.load(at[1], types[1], lanes))
            finish(out, to, *codes, lanes)

        def beside(to: Expr, at: Expr, rows: list[Expr], start: Expr, lanes: int) -> None:
            codes = small.load(right, rows[0], start, types[1], lanes)
            finish(out, to, left.load(at, types[0], lanes), codes, lanes)

        if same_dims(a, b):
            each_vector(y, [a, b], isa.bytes, vector)
        else:
            each_broadcast(y, a, [small], isa.bytes, beside)

    baked = (layer.scale_a, layer.scale_b, *bounds)
    key = kernel_key("add", isa, a, b, y, types, zeros, baked, small)
    return Kernel(key, build_func("add", ("a", "b", "y"), body), "binary", isa.name)


def build_mul(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """Product with a tensor of the same shape, with one gate per channel, or of any smaller shape."""
    if not isinstance(layer, IntMul):
        return None
    names = (*layer.inputs, layer.output)
    types = [tensors[name].dtype for name in names]
    zeros = [qparams_of(tensors[name]).zero_point for name in names]
    bounds = layer.low, layer.high
    a, b, y = (layouts[name] for name in names)
    gated = dims(b) == (a.batch, 1, 1, a.channels) and not same_dims(a, b)
    small = Broadcast.of(tensors[names[1]].shape, tensors[names[2]].shape, b)
    if not same_dims(a, y) or small is None:
        return None

    def shifted(data: Operand, at: Expr, index: int, lanes: int) -> Expr:
        wide = data.widen(at, types[index], lanes, "int32")
        return T.bind(wide - splat(zeros[index], lanes, "int32"))

    def finish(out: Operand, to: Expr, left: Expr, right: Expr, lanes: int) -> None:
        product = cast("float32", left * right, lanes)
        value = product * splat(layer.multiplier, lanes)
        out.store(to, round_clip(value, *bounds, lanes, types[2], zeros[2]), types[2], lanes)

    def elementwise(left: Operand, right: Operand, out: Operand) -> None:
        write_halo(out, y, zeros[2])

        def vector(to: Expr, at: list[Expr], lanes: int) -> None:
            wide_a = shifted(left, at[0], 0, lanes)
            finish(out, to, wide_a, shifted(right, at[1], 1, lanes), lanes)

        each_vector(y, [a, b], isa.bytes, vector)

    def per_channel(left: Operand, right: Operand, out: Operand) -> None:
        write_halo(out, y, zeros[2])

        def row(n: Expr, h: Expr) -> None:
            gate_base = T.bind(b.offset(n, i64(0), i64(0)))
            base_a, base_y = T.bind(a.offset(n, h, i64(0))), T.bind(y.offset(n, h, i64(0)))

            def segment(start: Expr, lanes: int) -> None:
                gate = shifted(right, gate_base + start, 1, lanes)

                def pixel(w: Expr) -> None:
                    wide_a = shifted(left, base_a + w * i64(a.pixel) + start, 0, lanes)
                    finish(out, base_y + w * i64(y.pixel) + start, wide_a, gate, lanes)

                each(y.width, pixel)

            # Segment by segment over the whole row: vectors past the channels must not reach the
            # next pixel, which may already be written.
            each_segment(y.channels, isa.bytes, y.pitch, segment)

        each_row(y, row)

    def broadcast(left: Operand, right: Operand, out: Operand) -> None:
        write_halo(out, y, zeros[2])

        def beside(to: Expr, at: Expr, rows: list[Expr], start: Expr, lanes: int) -> None:
            wide_a = shifted(left, at, 0, lanes)
            codes = cast("int32", small.load(right, rows[0], start, types[1], lanes), lanes)
            finish(out, to, wide_a, T.bind(codes - splat(zeros[1], lanes, "int32")), lanes)

        each_broadcast(y, a, [small], isa.bytes, beside)

    body = per_channel if gated else elementwise if same_dims(a, b) else broadcast
    baked = (zeros, layer.multiplier, layer.low, layer.high, small)
    key = kernel_key("mul", isa, a, b, y, types, baked)
    return Kernel(key, build_func("mul", ("a", "b", "y"), body), "binary", isa.name)


def build_affine(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """One fma with constants; they hold the multiplier, then the bias, each dense in its own shape."""
    if not isinstance(layer, IntAffine):
        return None
    source, spec = tensors[layer.inputs[0]], tensors[layer.output]
    x, y = layouts[layer.inputs[0]], layouts[layer.output]
    arrays = (layer.multiplier, layer.bias)
    found = [Broadcast.of(a.shape, spec.shape, Layout.dense(a.shape, 4)) for a in arrays]
    small = [one for one in found if one is not None]
    if not same_dims(x, y) or len(small) != len(found):
        return None
    starts = (i64(0), i64(-(-layer.multiplier.nbytes // 64) * 64))

    def body(data: Operand, constants: Operand, out: Operand) -> None:
        write_halo(out, y, halo_code(spec))

        def beside(to: Expr, at: Expr, rows: list[Expr], start: Expr, lanes: int) -> None:
            code = T.bind(data.widen(at, source.dtype, lanes))
            multiplier, bias = (
                one.load(constants, first + row, start, "float32", lanes)
                for one, first, row in zip(small, starts, rows, strict=True)
            )
            value = fma(code, multiplier, bias, lanes)
            codes = round_clip(value, layer.low, layer.high, lanes, spec.dtype, halo_code(spec))
            out.store(to, codes, spec.dtype, lanes)

        each_broadcast(y, x, small, isa.bytes, beside)

    dtypes = (source.dtype, spec.dtype)
    key = kernel_key("affine", isa, x, y, dtypes, small, layer.low, layer.high, halo_code(spec))
    func = build_func("affine", ("x", "constants", "y"), body)
    return Kernel(key, func, "binary", isa.name, constants=pack_constants(*arrays))


def _real(codes: Expr, zero: int, lanes: int) -> Expr:
    """float32(codes - zero), as a value used once."""
    wide = cast("int32", codes, lanes)
    if zero:
        wide = wide - splat(zero, lanes, "int32")
    return T.bind(cast("float32", wide, lanes))
