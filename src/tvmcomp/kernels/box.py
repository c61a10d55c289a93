"""Slice, Pad and concatenation along any axis: boxes of elements copied from one tensor into another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.graph.layers import Concat, Layer, Pad, Slice, TensorSpec
from tvmcomp.kernels.halo import fill, write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.rows import halo_code, kernel_key, pack_constants
from tvmcomp.kernels.table import LookUp, table_bytes
from tvmcomp.kernels.vector import Isa, Operand, build_func, each, each_row, each_segment, i64

__all__ = ["build_box_concat", "build_pad", "build_slice"]

Tensors = Mapping[str, TensorSpec]
Layouts = Mapping[str, Layout]


@dataclass(frozen=True)
class _Box:
    """Elements of a tensor from byte `start` on, axis by axis `strides` bytes apart; at least four axes."""

    start: int
    strides: tuple[int, ...]

    @classmethod
    def of(
        cls,
        layout: Layout,
        shape: tuple[int, ...],
        begin: Sequence[int] | None = None,
        steps: Sequence[int] | None = None,
    ) -> _Box:
        """Every `steps`-th element of a tensor of `shape` from `begin` on."""
        lead = _whole_rank(shape)[:-3]
        strides = (
            *(layout.image * prod(lead[axis + 1 :]) for axis in range(len(lead))),
            layout.row,
            layout.pixel,
            layout.itemsize,
        )
        missing = len(strides) - len(shape)
        first = (0,) * missing + tuple(begin or (0,) * len(shape))
        step = (1,) * missing + tuple(steps or (1,) * len(shape))
        start = layout.offset(0, 0, 0) + sum(
            a * stride for a, stride in zip(first, strides, strict=True)
        )
        return cls(start, tuple(a * stride for a, stride in zip(step, strides, strict=True)))

    def rows_first(self) -> _Box:
        """The same with width as height."""
        *lead, _, width, channel = self.strides
        return _Box(self.start, (*lead, width, 0, channel))


def _whole_rank(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (4 - len(shape)) + shape


def _copy(
    source: Operand,
    at: _Box,
    target: Operand,
    to: _Box,
    shape: tuple[int, ...],
    isa: Isa,
    look_up: LookUp | None = None,
) -> None:
    """A box of bytes of `shape`, perhaps through a table."""
    shape = _whole_rank(shape)
    if prod(shape[:-2]) == 1:
        # Threads share the rows.
        shape, at, to = (*shape[:-3], shape[-2], 1, shape[-1]), at.rows_first(), to.rows_first()
    *lead, height, width, channels = shape
    step = at.strides[-1]
    joined = step == 1 and {at.strides[-2], to.strides[-2]} == {channels}
    run, pixels = (width * channels, 1) if joined else (channels, width)
    lanes = LookUp.width(isa) if look_up is not None else isa.bytes

    def row(n: Expr, h: Expr) -> None:
        from_row, to_row = (
            T.bind(i64(box.start) + _lead(n, lead, box.strides) + h * i64(box.strides[-3]))
            for box in (at, to)
        )

        def pixel(w: Expr) -> None:
            first, last = (
                T.bind(base + w * i64(box.strides[-2]))
                for base, box in ((from_row, at), (to_row, to))
            )

            def vector(start: Expr, count: int) -> None:
                if step == 1:
                    where = first + start
                    value = (
                        look_up(source, where, count)
                        if look_up is not None
                        else source.load(where, "uint8", count)
                    )
                else:
                    value = _gathered(source, first + start * i64(step), step, count)
                target.store(last + start, value, "uint8", count)

            each_segment(run, lanes if step == 1 else min(lanes, 16), run, vector)

        each(pixels, pixel)

    each_row(Layout(prod(lead), height, width, channels, 1), row)


def _gathered(source: Operand, at: Expr, step: int, count: int) -> Expr:
    if count == 1:
        return source.load(at, "uint8", 1)
    loads = [T.bind(source.load(at + i64(lane * step), "uint8", 1)) for lane in range(count)]
    return tirx.Shuffle(loads, [tirx.IntImm("int32", lane) for lane in range(count)])


def _lead(n: Expr, lead: Sequence[int], strides: Sequence[int]) -> Expr:
    """The offset of a folded index of the leading axes."""
    if len(lead) == 1:
        return n * i64(strides[0])
    at: Expr = i64(0)
    for axis, length in enumerate(lead):
        if length > 1:
            index = tirx.FloorDiv(n, i64(prod(lead[axis + 1 :])))
            at = at + tirx.FloorMod(index, i64(length)) * i64(strides[axis])
    return at


def _codes_only(layer: Layer, tensors: Tensors) -> bool:
    return all(
        np.dtype(tensors[name].dtype).itemsize == 1 for name in (*layer.inputs, layer.output)
    )


def build_slice(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """One box out of x."""
    if not isinstance(layer, Slice) or not _codes_only(layer, tensors):
        return None
    source, spec = tensors[layer.inputs[0]], tensors[layer.output]
    x, y = layouts[source.name], layouts[spec.name]
    box = _Box.of(x, source.shape, layer.begin, layer.strides)

    def body(data: Operand, out: Operand) -> None:
        write_halo(out, y, halo_code(spec))
        _copy(data, box, out, _Box.of(y, spec.shape), spec.shape, isa)

    key = kernel_key("slice", isa, box, y, spec.shape, halo_code(spec))
    return Kernel(key, build_func("slice", ("x", "y"), body), "box", isa.name)


def build_pad(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """All of y filled, then x's box."""
    if not isinstance(layer, Pad) or not _codes_only(layer, tensors):
        return None
    source, spec = tensors[layer.inputs[0]], tensors[layer.output]
    x, y = layouts[source.name], layouts[spec.name]
    box = _Box.of(y, spec.shape, layer.before)

    def body(data: Operand, out: Operand) -> None:
        write_halo(out, y, halo_code(spec))
        byte = layer.value & 255
        length = y.width * y.pixel
        each_row(y, lambda n, h: fill(out, T.bind(y.offset(n, h, i64(0))), length, byte))
        _copy(data, _Box.of(x, source.shape), out, box, source.shape, isa)

    baked = (layer.value, source.shape, spec.shape, halo_code(spec))
    key = kernel_key("pad", isa, x, y, box, baked)
    return Kernel(key, build_func("pad", ("x", "y"), body), "box", isa.name)


def build_box_concat(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """One box per part; constants: the tables, 256 bytes each, then the constant parts."""
    if not isinstance(layer, Concat) or not _codes_only(layer, tensors):
        return None
    spec, y = tensors[layer.output], layouts[layer.output]
    names = iter(layer.inputs)
    parts = [
        constant if constant is not None else tensors[next(names)]
        for constant in layer.constants or (None,) * len(layer.inputs)
    ]
    tables = layer.tables or (None,) * len(parts)
    packed: list[np.ndarray] = []
    starts: list[int | None] = []
    for part, table in zip(parts, tables, strict=True):
        held = part if isinstance(part, np.ndarray) else table
        starts.append(None if held is None else sum(-(-a.size // 64) * 64 for a in packed))
        if isinstance(part, np.ndarray):
            packed.append(part.astype(spec.dtype))
        elif table is not None:
            packed.append(table_bytes(table.astype(spec.dtype), part.dtype))
    boxes, at = [], 0
    for part in parts:
        begin = [0] * len(spec.shape)
        begin[layer.axis] = at
        at += part.shape[layer.axis]
        place = Layout.dense(part.shape, 1) if isinstance(part, np.ndarray) else layouts[part.name]
        boxes.append((_Box.of(place, part.shape), _Box.of(y, spec.shape, begin)))

    def body(*operands: Operand) -> None:
        out, computed = operands[-1], iter(operands)
        constants = operands[len(layer.inputs)]
        write_halo(out, y, halo_code(spec))
        for part, start, (source, target) in zip(parts, starts, boxes, strict=True):
            if isinstance(part, np.ndarray):
                assert start is not None
                held = _Box(start + source.start, source.strides)
                _copy(constants, held, out, target, part.shape, isa)
                continue
            look_up = None if start is None else LookUp(isa, constants, start)
            _copy(next(computed), source, out, target, part.shape, isa, look_up)

    shapes = [(part.shape, isinstance(part, np.ndarray)) for part in parts]
    key = kernel_key("concat", isa, boxes, y, shapes, starts, halo_code(spec))
    operands = [f"x{i}" for i in range(len(layer.inputs))]
    operands += ["constants"] * bool(packed) + ["y"]
    blob = pack_constants(*packed) if packed else None
    return Kernel(key, build_func("concat", operands, body), "box", isa.name, constants=blob)
