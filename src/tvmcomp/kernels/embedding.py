"""Embedding: rows of a compressed table by index, whatever the index."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.compress.reference import code_range
from tvmcomp.graph.layers import Embedding, Layer, TensorSpec
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.rows import halo_code, kernel_key, pack_constants
from tvmcomp.kernels.vector import (
    Isa,
    Operand,
    build_func,
    each_row,
    each_segment,
    i64,
    round_clip,
    splat,
)

__all__ = ["build_embedding"]


def build_embedding(
    layer: Layer, tensors: Mapping[str, TensorSpec], layouts: Mapping[str, Layout], isa: Isa
) -> Kernel | None:
    """Threads share the indices; constants: the table's codes, then a scale per row."""
    if not isinstance(layer, Embedding):
        return None
    source, spec = tensors[layer.inputs[0]], tensors[layer.output]
    x, y = layouts[source.name], layouts[spec.name]
    count = prod(source.shape)
    rows, channels = layer.weight.shape
    if source.dtype not in ("int32", "int64") or prod(spec.shape) != count * channels:
        return None
    stored, pitch = str(layer.weight.dtype), channels * layer.weight.itemsize
    scales_at = -(-layer.weight.nbytes // 64) * 64

    def body(data: Operand, constants: Operand, out: Operand) -> None:
        write_halo(out, y, halo_code(spec))

        def index(_: Expr, at: Expr) -> None:
            row = tirx.Cast("int64", data.load(_element(x, at), source.dtype, 1))
            row = T.bind(row)
            row = T.bind(tirx.Select(row < i64(0), row + i64(rows), row))
            row = T.bind(tirx.Max(tirx.Min(row, i64(rows - 1)), i64(0)))
            scale = T.bind(constants.load(i64(scales_at) + row * i64(4), "float32", 1))
            to = T.bind(_pixel(y, at))

            def segment(start: Expr, lanes: int) -> None:
                at_code = row * i64(pitch) + start * i64(layer.weight.itemsize)
                value = T.bind(constants.widen(at_code, stored, lanes))
                where = to + start * i64(y.itemsize)
                if spec.qparams is None:
                    out.store(where, value * splat(scale, lanes), "float32", lanes)
                    return
                value = value * splat(scale, lanes)
                bounds = code_range(spec.dtype)
                codes = round_clip(value, *bounds, lanes, spec.dtype, spec.qparams.zero_point)
                out.store(where, codes, spec.dtype, lanes)

            each_segment(channels, isa.lanes if y.itemsize == 4 else isa.bytes, y.pitch, segment)

        each_row(Layout(1, count, 1, channels, y.itemsize), index)

    dtypes = (source.dtype, stored, spec.dtype)
    key = kernel_key("embedding", isa, x, y, dtypes, rows, halo_code(spec))
    func = build_func("embedding", ("x", "constants", "y"), body)
    blob = pack_constants(layer.weight, layer.scale.astype(np.float32))
    return Kernel(key, func, "embedding", isa.name, constants=blob)


def _element(layout: Layout, at: Expr) -> Expr:
    """Byte offset of an element by its row-major number."""
    if layout.is_dense:
        return at * i64(layout.itemsize)
    pixel = tirx.FloorDiv(at, i64(layout.channels))
    channel = tirx.FloorMod(at, i64(layout.channels))
    return _pixel(layout, T.bind(pixel)) + channel * i64(layout.itemsize)


def _pixel(layout: Layout, at: Expr) -> Expr:
    """Byte offset of a pixel by its row-major number."""
    if layout.halo == 0:
        return at * i64(layout.pixel)
    height, width = i64(layout.height), i64(layout.width)
    row = tirx.FloorDiv(at, width)
    return layout.offset(
        tirx.FloorDiv(row, height), tirx.FloorMod(row, height), tirx.FloorMod(at, width)
    )
