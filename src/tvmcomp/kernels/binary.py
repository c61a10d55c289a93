"""IntAdd and IntMul: two code tensors in, one out."""

from __future__ import annotations

from collections.abc import Mapping

from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.graph.layers import IntAdd, IntMul, Layer, TensorSpec
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.rows import dims, each_vector, halo_code, kernel_key, qparams_of, same_dims
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

__all__ = ["build_add", "build_mul"]

Tensors = Mapping[str, TensorSpec]
Layouts = Mapping[str, Layout]


def build_add(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """Sum of two tensors of one shape, each with its own scale."""
    if not isinstance(layer, IntAdd):
        return None
    names = (*layer.inputs, layer.output)
    types = [tensors[name].dtype for name in names]
    a, b, y = (layouts[name] for name in names)
    if not same_dims(a, b, y):
        return None
    zero = halo_code(tensors[layer.output])

    def body(left: Operand, right: Operand, out: Operand) -> None:
        write_halo(out, y, zero)

        def vector(to: Expr, at: list[Expr], lanes: int) -> None:
            wide_a = T.bind(left.widen(at[0], types[0], lanes))
            wide_b = T.bind(right.widen(at[1], types[1], lanes))
            inner = fma(wide_b, splat(layer.scale_b, lanes), splat(layer.bias, lanes), lanes)
            value = fma(wide_a, splat(layer.scale_a, lanes), T.bind(inner), lanes)
            codes = round_clip(value, layer.low, layer.high, lanes, types[2])
            out.store(to, codes, types[2], lanes)

        each_vector(y, [a, b], isa.bytes, vector)

    baked = (layer.scale_a, layer.scale_b, layer.bias, layer.low, layer.high)
    key = kernel_key("add", isa, a, b, y, types, zero, baked)
    return Kernel(key, build_func("add", ("a", "b", "y"), body), "binary", isa.name)


def build_mul(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """Product with a tensor of the same shape or with one gate per channel."""
    if not isinstance(layer, IntMul):
        return None
    names = (*layer.inputs, layer.output)
    types = [tensors[name].dtype for name in names]
    zeros = [qparams_of(tensors[name]).zero_point for name in names]
    a, b, y = (layouts[name] for name in names)
    gated = dims(b) == (a.batch, 1, 1, a.channels) and not same_dims(a, b)
    if not (same_dims(a, y) and (gated or same_dims(a, b))):
        return None

    def shifted(data: Operand, at: Expr, index: int, lanes: int) -> Expr:
        wide = data.widen(at, types[index], lanes, "int32")
        return T.bind(wide - splat(zeros[index], lanes, "int32"))

    def finish(out: Operand, to: Expr, left: Expr, right: Expr, lanes: int) -> None:
        product = cast("float32", left * right, lanes)
        value = fma(product, splat(layer.multiplier, lanes), splat(zeros[2], lanes), lanes)
        out.store(to, round_clip(value, layer.low, layer.high, lanes, types[2]), types[2], lanes)

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

    body = per_channel if gated else elementwise
    baked = (zeros, layer.multiplier, layer.low, layer.high)
    key = kernel_key("mul", isa, a, b, y, types, baked)
    return Kernel(key, build_func("mul", ("a", "b", "y"), body), "binary", isa.name)
