"""Resize: nearest and linear interpolation over H and W, on codes and on float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.graph.layers import Layer, Resize, TensorSpec
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.rows import as_bytes, halo_code, kernel_key, pack_constants
from tvmcomp.kernels.vector import (
    Isa,
    Operand,
    build_func,
    each,
    each_row,
    each_segment,
    fma,
    i64,
    round_clip,
    splat,
)

__all__ = ["build_resize"]

_RANGE = {"uint8": (0, 255), "int8": (-128, 127)}


def build_resize(
    layer: Layer, tensors: Mapping[str, TensorSpec], layouts: Mapping[str, Layout], isa: Isa
) -> Kernel | None:
    """One or two taps along each axis; constants: per axis the source indices, then the weights."""
    if not isinstance(layer, Resize):
        return None
    spec = tensors[layer.output]
    x, y = layouts[layer.inputs[0]], layouts[layer.output]
    heights, widths = layer.index_h.shape, layer.index_w.shape
    if (heights[0], widths[0]) != (y.height, y.width) or (x.batch, x.channels) != (
        y.batch,
        y.channels,
    ):
        return None
    # Nearest: nothing to round, so bytes are copied whatever the dtype.
    copies = heights[1] == widths[1] == 1 and bool(
        (layer.weight_h == 1).all() and (layer.weight_w == 1).all()
    )
    parts = [
        layer.index_h.astype(np.int32),
        layer.weight_h.astype(np.float32),
        layer.index_w.astype(np.int32),
        layer.weight_w.astype(np.float32),
    ]
    starts = np.cumsum([0] + [pack_constants(part).size for part in parts]).tolist()

    def body(data: Operand, constants: Operand, out: Operand) -> None:
        write_halo(out, y, halo_code(spec))

        def taps(axis: int, position: Expr, count: int) -> tuple[list[Expr], list[Expr]]:
            """Source indices (int64) and weights of one output position."""
            first = position * i64(4 * count)
            at = [first + i64(4 * tap) for tap in range(count)]
            index = [constants.load(i64(starts[2 * axis]) + o, "int32", 1) for o in at]
            weight = [constants.load(i64(starts[2 * axis + 1]) + o, "float32", 1) for o in at]
            return [T.bind(tirx.Cast("int64", i)) for i in index], [T.bind(w) for w in weight]

        def row(n: Expr, h: Expr) -> None:
            index_h, weight_h = taps(0, h, heights[1])
            rows = [T.bind(x.offset(n, index, i64(0))) for index in index_h]

            def pixel(w: Expr) -> None:
                index_w, weight_w = taps(1, w, widths[1])
                to = T.bind(y.offset(n, h, w))
                at = [[T.bind(r + i * i64(x.pixel)) for i in index_w] for r in rows]
                if copies:
                    _copy(data, out, at[0][0], to, as_bytes(y), isa)
                else:
                    _blend(data, out, at, to, (weight_h, weight_w), y, spec.dtype, isa)

            each(y.width, pixel)

        each_row(y, row)

    key = kernel_key("resize", isa, x, y, spec.dtype, heights, widths, copies, halo_code(spec))
    func = build_func("resize", ("x", "constants", "y"), body)
    return Kernel(key, func, "resize", isa.name, constants=pack_constants(*parts))


def _copy(data: Operand, out: Operand, at: Expr, to: Expr, y: Layout, isa: Isa) -> None:
    each_segment(
        y.channels,
        isa.bytes,
        y.pitch,
        lambda start, lanes: out.store(
            to + start, data.load(at + start, "uint8", lanes), "uint8", lanes
        ),
    )


def _blend(
    data: Operand,
    out: Operand,
    at: list[list[Expr]],
    to: Expr,
    weights: tuple[list[Expr], list[Expr]],
    y: Layout,
    dtype: str,
    isa: Isa,
) -> None:
    """fma(second, weight, first * weight) along W for each row, then along H."""

    def mix(taps: list[Expr], factors: list[Expr], lanes: int) -> Expr:
        value = T.bind(taps[0] * splat(factors[0], lanes))
        if len(taps) == 1:
            return value
        return T.bind(fma(taps[1], splat(factors[1], lanes), value, lanes))

    def vector(start: Expr, lanes: int) -> None:
        offset = start * i64(y.itemsize)

        def read(base: Expr) -> Expr:
            if dtype == "float32":
                return T.bind(data.load(base + offset, dtype, lanes))
            return T.bind(data.widen(base + offset, dtype, lanes))

        rows = [mix([read(base) for base in bases], weights[1], lanes) for bases in at]
        value = mix(rows, weights[0], lanes)
        if dtype != "float32":
            value = round_clip(value, *_RANGE[dtype], lanes, dtype)
        out.store(to + offset, value, dtype, lanes)

    each_segment(y.channels, isa.lanes if y.itemsize == 4 else isa.bytes, y.pitch, vector)
