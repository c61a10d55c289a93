"""Concat: tensors side by side along the channels, integer ones through a table where scales differ."""

from __future__ import annotations

from collections.abc import Mapping

from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.graph.layers import Concat, Layer, TensorSpec
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.rows import as_bytes, dims, halo_code, kernel_key, pack_constants
from tvmcomp.kernels.table import LookUp, table_bytes
from tvmcomp.kernels.vector import Isa, Operand, build_func, each, each_row, each_segment, i64

__all__ = ["build_concat"]


def build_concat(
    layer: Layer, tensors: Mapping[str, TensorSpec], layouts: Mapping[str, Layout], isa: Isa
) -> Kernel | None:
    """Channel concatenation of any number of inputs; constants: the tables, 256 bytes each."""
    if not isinstance(layer, Concat) or layer.constants:
        return None
    if layer.axis % len(tensors[layer.output].shape) != len(tensors[layer.output].shape) - 1:
        return None
    spec = tensors[layer.output]
    y = as_bytes(layouts[layer.output])
    xs = [as_bytes(layouts[name]) for name in layer.inputs]
    if any(dims(x)[:3] != dims(y)[:3] for x in xs) or sum(x.channels for x in xs) != y.channels:
        return None
    tables = layer.tables or (None,) * len(xs)
    packed = [
        table_bytes(table.astype(spec.dtype), tensors[name].dtype)
        for name, table in zip(layer.inputs, tables, strict=True)
        if table is not None
    ]
    used = [table is not None for table in tables]

    def body(*operands: Operand) -> None:
        out = operands[-1]
        constants = operands[len(xs)]
        write_halo(out, y, halo_code(spec))

        def row(n: Expr, h: Expr) -> None:
            start = T.bind(y.offset(n, h, i64(0)))
            bases = [T.bind(x.offset(n, h, i64(0))) for x in xs]

            def pixel(w: Expr) -> None:
                channel = 0
                for i, x in enumerate(xs):
                    look_up = LookUp(isa, constants, 256 * sum(used[:i])) if used[i] else None
                    at = T.bind(bases[i] + w * i64(x.pixel))
                    to = T.bind(start + w * i64(y.pixel) + i64(channel))
                    _append(operands[i], at, out, to, x.channels, y.pitch - channel, look_up, isa)
                    channel += x.channels

            each(y.width, pixel)

        each_row(y, row)

    key = kernel_key("concat", isa, xs, y, used, halo_code(spec))
    names = [f"x{i}" for i in range(len(xs))] + ["constants"] * bool(packed) + ["y"]
    blob = pack_constants(*packed) if packed else None
    return Kernel(key, build_func("concat", names, body), "concat", isa.name, constants=blob)


def _append(
    data: Operand,
    at: Expr,
    out: Operand,
    to: Expr,
    count: int,
    room: int,
    look_up: LookUp | None,
    isa: Isa,
) -> None:
    """Copy `count` bytes. A tail may run into the next input's channels: they are written after it."""

    def vector(start: Expr, lanes: int) -> None:
        at_start = at + start
        value = look_up(data, at_start, lanes) if look_up else data.load(at_start, "uint8", lanes)
        out.store(to + start, value, "uint8", lanes)

    each_segment(count, LookUp.width(isa) if look_up else isa.bytes, room, vector)
