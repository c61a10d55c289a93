"""DynamicQuantize and DynamicDequantize: codes on a grid taken from the values themselves.

per row:     for each row: range; scale, zero point; codes                     (rows shared among the threads)
per tensor:  for each part of the rows: range; scale, zero point of them all; for each part: codes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.graph.layers import DynamicDequantize, DynamicQuantize, Layer, TensorSpec
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.rows import dims, kernel_key, same_dims
from tvmcomp.kernels.vector import (
    Isa,
    Operand,
    build_func,
    cast,
    each,
    each_segment,
    fma,
    i64,
    round_clip,
    splat,
)

__all__ = ["build_dynamic_dequantize", "build_dynamic_quantize"]

Tensors = Mapping[str, TensorSpec]
Layouts = Mapping[str, Layout]

_LEVELS = 255
_LEAST, _MOST = 2.0**-64, 2.0**64
_LOWEST = {"uint8": 0, "int8": -128}
# Ranges of this many vectors are taken side by side, to hide the latency of a minimum.
_CHAINS = 4
# Below this many bytes of x waking the thread pool costs more than the work.
_PARALLEL_BYTES = 64 * 1024
_PARTS = 16


def build_dynamic_quantize(
    layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa
) -> Kernel | None:
    """float32 -> codes, scale and zero point."""
    if not isinstance(layer, DynamicQuantize):
        return None
    x, y = layouts[layer.inputs[0]], layouts[layer.output]
    # A border has one zero point, so there is none around rows that have one each.
    if not same_dims(x, y) or (layer.per_row and y.halo):
        return None
    dtype = tensors[layer.output].dtype

    def body(data: Operand, codes: Operand, scale: Operand, zero: Operand) -> None:
        emitter = _Emitter(x, y, dtype, isa, data, codes, scale, zero)
        emitter.per_row() if layer.per_row else emitter.per_tensor()

    func = build_func("dynamic_quantize", ("x", "codes", "scale", "zero_point"), body)
    key = kernel_key("dynamic_quantize", isa, x, y, dtype, layer.per_row)
    return Kernel(key, func, "dynamic", isa.name)


def build_dynamic_dequantize(
    layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa
) -> Kernel | None:
    """codes, scale and zero point -> float32."""
    if not isinstance(layer, DynamicDequantize):
        return None
    codes, scale, _ = (tensors[name] for name in layer.inputs)
    x, y = layouts[codes.name], layouts[layer.output]
    if not same_dims(x, y):
        return None
    step = 4 if layouts[scale.name].nbytes > 4 else 0

    def body(data: Operand, scales: Operand, zeros: Operand, out: Operand) -> None:
        write_halo(out, y, 0)

        def row(index: Expr) -> None:
            at = T.bind(index * i64(step))
            factor = T.bind(scales.load(at, "float32", 1))
            zero = T.bind(zeros.load(at, "int32", 1))
            source, target = _offset(x, index), _offset(y, index)

            def vector(start: Expr, lanes: int) -> None:
                steps = data.widen(source + start, codes.dtype, lanes, "int32")
                real = cast("float32", steps - splat(zero, lanes, "int32"), lanes)
                out.store(target + start * i64(4), real * splat(factor, lanes), "float32", lanes)

            each_segment(y.channels, isa.lanes, y.channels, vector)

        each(_rows(y), row, parallel=y.nbytes >= _PARALLEL_BYTES)

    func = build_func("dynamic_dequantize", ("codes", "scale", "zero_point", "y"), body)
    key = kernel_key("dynamic_dequantize", isa, x, y, codes.dtype, step)
    return Kernel(key, func, "dynamic", isa.name)


def _rows(layout: Layout) -> int:
    return layout.batch * layout.height * layout.width


def _offset(layout: Layout, index: Expr) -> Expr:
    """Where row `index` of all rows of channels starts."""
    batch, height, width, _ = dims(layout)
    w = tirx.FloorMod(index, i64(width)) if width > 1 else i64(0)
    h = tirx.FloorDiv(index, i64(width))
    n = i64(0)
    if batch > 1:
        n = tirx.FloorDiv(h, i64(height))
        h = tirx.FloorMod(h, i64(height))
    return T.bind(layout.offset(n, h, w))


@dataclass(frozen=True, eq=False)
class _Range:
    """Smallest and largest value and zero for both, and a number that is 0, or NaN if a value is not finite."""

    low: Expr
    high: Expr
    poison: Expr

    def join(self, other: _Range) -> _Range:
        """The range of both. A NaN on the left is passed over: `poison` tells of it."""
        return _Range(
            T.bind(tirx.Min(other.low, self.low)),
            T.bind(tirx.Max(other.high, self.high)),
            T.bind(self.poison + other.poison),
        )

    def extended(self, values: Expr, zero: Expr) -> _Range:
        """The range with `values` in it."""
        return self.join(_Range(values, values, values * zero))

    def of_lanes(self, lanes: int) -> _Range:
        """The range of all lanes, in one."""
        found = self
        while lanes > 1:
            lanes //= 2
            halves = [
                [
                    tirx.Shuffle([value], [tirx.IntImm("int32", start + i) for i in range(lanes)])
                    for value in (found.low, found.high, found.poison)
                ]
                for start in (0, lanes)
            ]
            found = _Range(*halves[0]).join(_Range(*halves[1]))
        return found


class _Cell:
    """A range in memory: registers of a loop, or one part's result."""

    def __init__(self, count: int, lanes: int) -> None:
        self._lanes = lanes
        size = count * lanes
        self._buffers = [T.alloc_buffer((size,), "float32", scope="global") for _ in range(3)]

    def _index(self, at: Expr) -> list[Expr]:
        first = at * i64(self._lanes)
        return [first if self._lanes == 1 else tirx.Ramp(first, i64(1), self._lanes)]

    def load(self, at: Expr) -> _Range:
        return _Range(*(T.bind(tirx.BufferLoad(b, self._index(at))) for b in self._buffers))

    def store(self, at: Expr, value: _Range) -> None:
        parts = (value.low, value.high, value.poison)
        for buffer, part in zip(self._buffers, parts, strict=True):
            T.buffer_store(buffer, part, self._index(at))


@dataclass(frozen=True, eq=False)
class _Emitter:
    x: Layout
    y: Layout
    dtype: str
    isa: Isa
    data: Operand
    codes: Operand
    scale: Operand
    zero: Operand

    def per_row(self) -> None:
        """Every row on its own."""

        def row(index: Expr) -> None:
            at = _offset(self.x, index)
            cell = self._cell(1)
            self._take(at, cell)
            scale, steps = self._grid(cell.load(i64(0)).of_lanes(self._width), index * i64(4))
            self._encode(at, _offset(self.y, index), scale, steps)

        each(_rows(self.x), row, parallel=self._parallel)

    def per_tensor(self) -> None:
        """Two passes over all rows: they are cut into parts that threads share."""
        rows = _rows(self.x)
        parts = min(rows, _PARTS)
        each_part = -(-rows // parts)
        parts = -(-rows // each_part)
        ranges = _Cell(parts, 1)

        def walk(part: Expr, body: Callable[[Expr], None]) -> None:
            first = T.bind(part * i64(each_part))
            count = i64(each_part)
            if rows % each_part:
                count = T.bind(tirx.Min(count, i64(rows) - first))
            with T.serial(i64(0), count) as k:
                body(T.bind(first + k))

        def take(part: Expr) -> None:
            cell = self._cell(1)
            walk(part, lambda index: self._take(_offset(self.x, index), cell))
            ranges.store(part, cell.load(i64(0)).of_lanes(self._width))

        each(parts, take, parallel=self._parallel)
        total = _Cell(1, 1)
        total.store(i64(0), ranges.load(i64(0)))
        each(parts, lambda p: total.store(i64(0), total.load(i64(0)).join(ranges.load(p))))
        scale, steps = self._grid(total.load(i64(0)), i64(0))
        write_halo(self.codes, self.y, cast("uint8", steps + self._lowest, 1))

        def encode(index: Expr) -> None:
            self._encode(_offset(self.x, index), _offset(self.y, index), scale, steps)

        each(parts, lambda part: walk(part, encode), parallel=self._parallel)

    @property
    def _parallel(self) -> bool:
        return self.x.nbytes >= _PARALLEL_BYTES

    @property
    def _width(self) -> int:
        """Lanes of the vectors a row is read in: all of the vector, or a row's largest power of two."""
        return min(self.isa.lanes, 1 << (self.x.channels.bit_length() - 1))

    @property
    def _lowest(self) -> Expr:
        return tirx.IntImm("int32", _LOWEST[self.dtype])

    def _cell(self, count: int) -> _Cell:
        """Ranges that hold nothing but zero."""
        cell = _Cell(count, self._width)
        nothing = splat(0.0, self._width)
        for i in range(count):
            cell.store(i64(i), _Range(nothing, nothing, nothing))
        return cell

    def _take(self, at: Expr, cell: _Cell) -> None:
        """Widen the range in `cell` by the row at `at`, in chains that do not wait for each other."""
        width, channels = self._width, self.x.channels
        zero = splat(0.0, width)
        full, rest = divmod(channels, width)

        def values(start: Expr) -> Expr:
            return T.bind(self.data.load(at + start * i64(4), "float32", width))

        blocks, single = divmod(full, _CHAINS)
        if blocks > 1:
            chains = [cell, *(self._cell(1) for _ in range(_CHAINS - 1))]

            def block(index: Expr) -> None:
                first = T.bind(index * i64(width * _CHAINS))
                for i, chain in enumerate(chains):
                    grown = chain.load(i64(0)).extended(values(first + i64(i * width)), zero)
                    chain.store(i64(0), grown)

            each(blocks, block)
            for chain in chains[1:]:
                cell.store(i64(0), cell.load(i64(0)).join(chain.load(i64(0))))
        else:
            blocks, single = 0, full
        starts = [(blocks * _CHAINS + i) * width for i in range(single)]
        if rest:
            # The last vector goes back over values the one before it had: a range does not mind.
            starts.append(channels - width)
        for start in starts:
            cell.store(i64(0), cell.load(i64(0)).extended(values(i64(start)), zero))

    def _grid(self, found: _Range, at: Expr) -> tuple[Expr, Expr]:
        """Store scale and zero point at byte `at`; returns the scale and the zero point less the lowest code."""
        half = T.bind(fma(found.high, splat(0.5, 1), found.low * splat(-0.5, 1), 1))
        step = T.bind(half / splat(_LEVELS, 1) * splat(2.0, 1))
        scale = T.bind(
            tirx.Select(tirx.EQ(step, splat(0.0, 1)), splat(1.0, 1), step) + found.poison
        )
        steps = T.bind(round_clip((splat(0.0, 1) - found.low) / scale, 0, _LEVELS, 1))
        self.scale.store(at, scale, "float32", 1)
        self.zero.store(at, steps + self._lowest, "int32", 1)
        return scale, steps

    def _encode(self, at: Expr, to: Expr, scale: Expr, steps: Expr) -> None:
        """The codes of one row."""
        shift = T.bind(steps + self._lowest)
        low = T.bind(cast("float32", splat(0, 1, "int32") - steps, 1))
        high = T.bind(low + splat(_LEVELS, 1))

        def row(quotient: Callable[[Expr, int], Expr]) -> None:
            def vector(start: Expr, lanes: int) -> None:
                values = T.bind(self.data.load(at + start * i64(4), "float32", lanes))
                codes = round_clip(quotient(values, lanes), low, high, lanes)
                codes = codes + splat(shift, lanes, "int32")
                self.codes.store(to + start, cast(self.dtype, codes, lanes), self.dtype, lanes)

            each_segment(self.x.channels, self.isa.lanes, self.x.channels, vector)

        if not self.isa.fma:
            row(lambda values, lanes: values / splat(scale, lanes))
            return
        with T.If(tirx.And(scale >= splat(_LEAST, 1), scale <= splat(_MOST, 1))):
            with T.Then():
                row(_divide_by(scale))
            with T.Else():
                row(lambda values, lanes: values / splat(scale, lanes))


def _divide_by(scale: Expr) -> Callable[[Expr, int], Expr]:
    """x -> x / scale, rounded as a division is, in five instructions that do not wait for the divider.

    A quotient from the rounded reciprocal is off by at most two units in the last place; one correction by its
    remainder, which fma has exactly, brings it within one, and the second then rounds correctly (Markstein, 1990).
    Quotients are at most 256 here and the scale lies in [_LEAST, _MOST], so nothing on the way leaves the normal
    numbers but for quotients far below one half.
    """
    inverse = T.bind(splat(1.0, 1) / scale)
    negative = T.bind(splat(0.0, 1) - scale)

    def quotient(values: Expr, lanes: int) -> Expr:
        reciprocal, minus = splat(inverse, lanes), splat(negative, lanes)
        found = T.bind(values * reciprocal)
        for _ in range(2):
            remainder = fma(found, minus, values, lanes)
            found = T.bind(fma(remainder, reciprocal, found, lanes))
        return found

    return quotient
