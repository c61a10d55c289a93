"""MaxPool and IntAvgPool: window reductions over NHWC that never read the border."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.compress.reference import average_factors
from tvmcomp.graph.layers import IntAvgPool, Layer, MaxPool, TensorSpec
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.rows import halo_code, kernel_key, pack_constants, qparams_of, with_dims
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

__all__ = ["build_avg_pool", "build_max_pool"]

Tensors = Mapping[str, TensorSpec]
Layouts = Mapping[str, Layout]
_UNROLL = 32  # windows of at most this many taps are written out


@dataclass(frozen=True)
class _Axis:
    """One spatial axis of a pool: input size, output size, and the window's geometry."""

    size: int
    out: int
    kernel: int
    stride: int
    before: int
    dilation: int

    @property
    def interior(self) -> tuple[int, int]:
        """Outputs [start, stop) whose windows lie inside the input."""
        reach = (self.kernel - 1) * self.dilation
        start = min(self.out, -(-self.before // self.stride))
        stop = (self.size - 1 - reach + self.before) // self.stride + 1
        return start, max(start, min(self.out, stop))

    @property
    def has_border(self) -> bool:
        return self.interior != (0, self.out)

    def valid(self, position: int) -> int:
        """How many taps of this output's window are inside."""
        first = position * self.stride - self.before
        taps = range(first, first + self.kernel * self.dilation, self.dilation)
        return sum(0 <= tap < self.size for tap in taps)

    def taps(self, position: Expr, inside: bool) -> _Taps:
        """The window at `position`; `inside` promises that all of it is."""
        first = T.bind(position * i64(self.stride) - i64(self.before))
        if inside:
            return _Taps(self, first, None)
        step = i64(self.dilation)
        below = tirx.Max(i64(0) - first, i64(0)) + step - i64(1)
        low = T.bind(tirx.FloorDiv(below, step))
        top = tirx.FloorDiv(i64(self.size - 1) - first, step)
        high = T.bind(tirx.Min(i64(self.kernel - 1), top))
        return _Taps(self, first, (low, high))


@dataclass(frozen=True)
class _Taps:
    """Taps low..high of a window are inside the input; `limits` is None when all are."""

    axis: _Axis
    first: Expr
    limits: tuple[Expr, Expr] | None

    def index(self, tap: Expr) -> Expr:
        """Input index of `tap`, moved to the nearest tap that is inside."""
        if self.limits is not None:
            tap = tirx.Min(tirx.Max(tap, self.limits[0]), self.limits[1])
        return self.first + tap * i64(self.axis.dilation)

    def mask(self, tap: Expr) -> Expr | None:
        """-1 where `tap` is inside, 0 where it is in the border; None if it always is inside."""
        if self.limits is None:
            return None
        inside = tirx.And(tap >= self.limits[0], tap <= self.limits[1])
        minus, zero = tirx.IntImm("int32", -1), tirx.IntImm("int32", 0)
        return tirx.Select(inside, minus, zero)

    @property
    def count(self) -> Expr:
        """How many taps are inside."""
        if self.limits is None:
            return i64(self.axis.kernel)
        return self.limits[1] - self.limits[0] + i64(1)


def _axes(layer: MaxPool | IntAvgPool, x: Layout, y: Layout) -> tuple[_Axis, _Axis] | None:
    """None where a window holds no input at all, or the sizes do not fit."""
    dilation = layer.dilation if isinstance(layer, MaxPool) else (1, 1)
    axes = []
    for i, (size, out) in enumerate(((x.height, y.height), (x.width, y.width))):
        before, after = layer.pads[i], layer.pads[i + 2]
        axis = _Axis(size, out, layer.kernel[i], layer.strides[i], before, dilation[i])
        reach = (axis.kernel - 1) * axis.dilation + 1
        if out != (size + before + after - reach) // axis.stride + 1:
            return None
        if any(axis.valid(position) == 0 for position in range(out)):
            return None
        axes.append(axis)
    return axes[0], axes[1]


# window(n, h, w, rows, columns, start, lanes) reduces one window for one vector of channels.
_Window = Callable[[Expr, Expr, Expr, _Taps, _Taps, Expr, int], None]


def _each_window(axes: tuple[_Axis, _Axis], y: Layout, width: int, window: _Window) -> None:
    """Every window of every channel vector; columns inside the input go without index checks."""
    vertical, horizontal = axes
    start, stop = horizontal.interior

    def row(n: Expr, h: Expr) -> None:
        rows = vertical.taps(h, not vertical.has_border)

        def columns(first: int, last: int, inside: bool) -> None:
            def pixel(index: Expr) -> None:
                w = T.bind(index + i64(first))
                taps = horizontal.taps(w, inside)
                each_segment(
                    y.channels,
                    width,
                    y.pitch,
                    lambda c, lanes: window(n, h, w, rows, taps, c, lanes),
                )

            each(last - first, pixel)

        columns(0, start, False)
        columns(start, stop, True)
        columns(stop, horizontal.out, False)

    each_row(y, row)


def _reduce(
    axes: tuple[_Axis, _Axis],
    initial: Expr,
    lanes: int,
    dtype: str,
    step: Callable[[Expr, Expr, Expr], Expr],
) -> Expr:
    """step(accumulator, row tap, column tap) over the window: written out, or a loop if it is large."""
    height, width = axes[0].kernel, axes[1].kernel
    if height * width <= _UNROLL:
        value = T.bind(initial)
        for i in range(height):
            for j in range(width):
                value = T.bind(step(value, i64(i), i64(j)))
        return value
    # A buffer of constant size in scope "global" is on the stack and becomes registers.
    total = T.alloc_buffer((lanes,), dtype, scope="global")
    everything = [i64(0) if lanes == 1 else tirx.Ramp(i64(0), i64(1), lanes)]
    T.buffer_store(total, initial, everything)

    def tap(i: Expr, j: Expr) -> None:
        T.buffer_store(total, step(tirx.BufferLoad(total, everything), i, j), everything)

    each(height, lambda i: each(width, lambda j: tap(i, j)))
    return T.bind(tirx.BufferLoad(total, everything))


def build_max_pool(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """Taps in the border are replaced by the nearest tap inside, which cannot change a maximum."""
    if not isinstance(layer, MaxPool):
        return None
    spec = tensors[layer.output]
    x, y = layouts[layer.inputs[0]], layouts[layer.output]
    axes = _axes(layer, x, y)
    if axes is None or (x.batch, x.channels) != (y.batch, y.channels):
        return None
    size = y.itemsize

    def body(data: Operand, out: Operand) -> None:
        write_halo(out, y, halo_code(spec))

        def window(
            n: Expr, h: Expr, w: Expr, rows: _Taps, columns: _Taps, c: Expr, lanes: int
        ) -> None:
            def read(i: Expr, j: Expr) -> Expr:
                at = x.offset(n, rows.index(i), columns.index(j)) + c * i64(size)
                return data.load(at, spec.dtype, lanes)

            def step(best: Expr, i: Expr, j: Expr) -> Expr:
                # Max names the accumulator once: a Select of it would double in size at every tap when
                # the simplifier inlines it.
                return tirx.Max(best, read(i, j))

            best = _reduce(axes, read(i64(0), i64(0)), lanes, spec.dtype, step)
            out.store(y.offset(n, h, w) + c * i64(size), best, spec.dtype, lanes)

        _each_window(axes, y, isa.lanes if size == 4 else isa.bytes, window)

    geometry = (layer.kernel, layer.strides, layer.pads, layer.dilation)
    key = kernel_key("max_pool", isa, x, y, spec.dtype, geometry, halo_code(spec))
    return Kernel(key, build_func("max_pool", ("x", "y"), body), "pool", isa.name)


def build_avg_pool(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """Integer sum, then one fma. Where the divisor excludes the border, constants: m per position."""
    if not isinstance(layer, IntAvgPool):
        return None
    source, spec = tensors[layer.inputs[0]], tensors[layer.output]
    x = layouts[layer.inputs[0]]
    y = with_dims(layouts[layer.output], (x.batch, *_out_size(layer, x), x.channels))
    axes = _axes(layer, x, y) if y is not None else None
    if y is None or axes is None:
        return None
    factor, bias = average_factors(layer, source, spec)
    border = qparams_of(source).zero_point if layer.count_include_pad else 0
    inside = not any(axis.has_border for axis in axes)
    area = layer.kernel[0] * layer.kernel[1]

    def body(data: Operand, *rest: Operand) -> None:
        out = rest[-1]
        write_halo(out, y, halo_code(spec))

        def window(
            n: Expr, h: Expr, w: Expr, rows: _Taps, columns: _Taps, c: Expr, lanes: int
        ) -> None:
            def step(total: Expr, i: Expr, j: Expr) -> Expr:
                at = x.offset(n, rows.index(i), columns.index(j)) + c
                code = data.widen(at, source.dtype, lanes, "int32")
                for mask in (rows.mask(i), columns.mask(j)):
                    if mask is not None:
                        code = code & splat(mask, lanes)
                return total + code

            outside = tirx.IntImm("int32", 0)
            if border and not inside:
                missing = i64(area) - rows.count * columns.count
                outside = tirx.Cast("int32", missing * i64(border))
            total = _reduce(axes, splat(T.bind(outside), lanes), lanes, "int32", step)
            if factor.ndim:
                at = (h * i64(y.width) + w) * i64(4)
                m = splat(T.bind(rest[0].load(at, "float32", 1)), lanes)
            else:
                m = splat(float(factor), lanes)
            value = fma(cast("float32", total, lanes), m, splat(float(bias), lanes), lanes)
            codes = round_clip(value, layer.low, layer.high, lanes, spec.dtype, halo_code(spec))
            out.store(y.offset(n, h, w) + c, codes, spec.dtype, lanes)

        _each_window(axes, y, isa.bytes, window)

    geometry = (layer.kernel, layer.strides, layer.pads, layer.count_include_pad)
    baked = (border, None if factor.ndim else float(factor), float(bias), layer.low, layer.high)
    dtypes = (source.dtype, spec.dtype)
    key = kernel_key("avg_pool", isa, x, y, dtypes, geometry, baked, halo_code(spec))
    blob = pack_constants(factor.astype(np.float32)) if factor.ndim else None
    names = ("x", "y") if blob is None else ("x", "constants", "y")
    return Kernel(key, build_func("avg_pool", names, body), "pool", isa.name, constants=blob)


def _out_size(layer: IntAvgPool, x: Layout) -> tuple[int, int]:
    height = (x.height + layer.pads[0] + layer.pads[2] - layer.kernel[0]) // layer.strides[0] + 1
    width = (x.width + layer.pads[1] + layer.pads[3] - layer.kernel[1]) // layer.strides[1] + 1
    return height, width
