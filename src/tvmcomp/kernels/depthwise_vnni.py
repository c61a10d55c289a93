"""Depthwise convolution of u8 codes by vpdpbusd: four rows of one column per dword.

    column(w):  bytes of rows r0..r3 at pixel w, interleaved  ->  dwords [channel][4 rows]
    acc[row][w] += dot4(column(w + j), weights[j][row])       for every kernel column j

A block of output rows shares its columns, which are interleaved once into a scratch line.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.graph.layers import IntConv
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.vector import (
    Operand,
    add_saturated,
    cast,
    each,
    each_row,
    fma,
    i64,
    pure,
    round_clip,
    segments,
    splat,
)

__all__ = ["VnniPlan", "emit_vnni", "first_sums", "pack_vnni", "plan_vnni"]

_SCRATCH = 16 * 1024  # bytes of interleaved columns that stay in L1


@dataclass(frozen=True)
class VnniPlan:
    """rows: output rows per block; pixels: output vectors at a time; tile: output columns per pass;
    packed: pixels per 64-byte vector (2 where 32 channels would leave half of it empty);
    bounded: no value before rounding reaches 2**31, so that it may be clipped after conversion."""

    rows: int
    pixels: int
    tile: int
    packed: int
    bounded: bool

    def fits(self, y: Layout) -> bool:
        """Whether blocks and tiles of this plan lie inside y."""
        return self.rows <= y.height and self.pixels * self.packed <= self.tile <= y.width


@dataclass(frozen=True)
class _Rows:
    """The distinct input rows of a block, four to a group, and which groups each output row needs."""

    offsets: tuple[int, ...]
    needs: tuple[tuple[int, ...], ...]

    @property
    def groups(self) -> int:
        return -(-len(self.offsets) // 4)


def _rows(layer: IntConv, count: int) -> _Rows:
    kernel, stride, dilation = layer.weight.shape[1], layer.strides[0], layer.dilation[0]
    taps = [[r * stride + i * dilation for i in range(kernel)] for r in range(count)]
    offsets = tuple(sorted({row for window in taps for row in window}))
    needs = tuple(tuple(sorted({offsets.index(row) // 4 for row in window})) for window in taps)
    return _Rows(offsets, needs)


def _lane_channels() -> np.ndarray:
    """[4 vectors, 16 dwords]: the channel each holds, as interleaving within 128-bit lanes leaves it."""
    dword = np.arange(16)
    return np.stack([16 * (dword // 4) + 4 * vector + dword % 4 for vector in range(4)])


def _starts(channels: int) -> list[int]:
    """First channels of the 64-wide blocks; the last is moved back to fit, if there are 64 at all."""
    return [max(0, min(start, channels - 64)) for start in range(0, channels, 64)]


def plan_vnni(layer: IntConv, x: Layout, y: Layout) -> VnniPlan:
    """The block of rows with the fewest operations per output, and a tile whose columns fit in L1."""
    kernel_w = layer.weight.shape[2]
    step, reach = layer.strides[1], (kernel_w - 1) * layer.dilation[1]

    packed = 1
    if x.pitch == y.pitch and x.pitch in (16, 32) and step == 1:
        packed = 64 // x.pitch if 64 // x.pitch <= y.width else 1

    def pixels_for(rows: int) -> int:
        return max(1, min(4 // rows, y.width // packed))

    def cost(rows: int) -> float:
        # Cycles per 64 outputs: interleaving on one port, dot products on two, two loads of weights.
        shape = _rows(layer, rows)
        shuffles = 8 * shape.groups * min(step, kernel_w)
        dots = 4 * kernel_w * sum(map(len, shape.needs))
        return (shuffles + dots / 2 + dots / 2 / pixels_for(rows)) / rows

    rows = min((r for r in (1, 2, 4) if r <= y.height), key=cost)
    pixels = pixels_for(rows)
    columns = _SCRATCH // (256 * _rows(layer, rows).groups)
    widest = max(packed * pixels, (columns - reach - 1) // step + 1)
    tile = -(-y.width // -(-y.width // widest))
    tile = min(y.width, max(tile, packed * pixels))
    code = 255.0 * np.abs(layer.weight.astype(np.float64)).sum(axis=(1, 2, 3))
    bound = (np.abs(layer.multiplier.astype(np.float64)) * code + np.abs(layer.bias)).max()
    return VnniPlan(rows, pixels, tile, packed, bounded=bool(bound < 2**30))


def first_sums(layer: IntConv, zero_point: int) -> np.ndarray:
    """int32 [O]: what sums start at, to undo x's zero point."""
    sums = layer.weight.reshape(len(layer.weight), -1).sum(axis=1, dtype=np.int64)
    return (-zero_point * sums).astype(np.int32)


def pack_vnni(layer: IntConv, x: Layout, zero_point: int, plan: VnniPlan) -> np.ndarray:
    """64 zero bytes, then per block: weights [kernel column][row][group][4 vectors][16][4 rows],
    multipliers [4 vectors][16], biases and first sums alike."""
    outputs, kernel_h, kernel_w, _ = layer.weight.shape
    rows = _rows(layer, plan.rows)
    weight = np.zeros((outputs + 64, kernel_h, kernel_w), np.int8)
    weight[:outputs] = layer.weight[..., 0]
    factors = np.zeros((3, outputs + 64), np.float32)
    factors[0, :outputs], factors[1, :outputs] = layer.multiplier, layer.bias
    factors[2, :outputs] = first_sums(layer, zero_point).view(np.float32)
    parts = [np.zeros(64, np.uint8)]
    for start in _starts(outputs) if plan.packed == 1 else [0]:
        channels = start + _lane_channels() % (64 if plan.packed == 1 else x.pitch)
        for j, (r, groups) in product(range(kernel_w), enumerate(rows.needs)):
            for group in groups:
                vector = np.zeros((4, 16, 4), np.int8)
                for i in range(kernel_h):
                    row = rows.offsets.index(r * layer.strides[0] + i * layer.dilation[0])
                    if row // 4 == group:
                        vector[..., row % 4] = weight[channels, i, j]
                parts.append(vector.reshape(-1).view(np.uint8))
        parts += [factors[part][channels].reshape(-1).view(np.uint8) for part in range(3)]
    return np.concatenate(parts)


def emit_vnni(
    layer: IntConv,
    layouts: tuple[Layout, Layout],
    dtype: str,
    zero: int,
    plan: VnniPlan,
    data: tuple[Operand, Operand, Operand],
) -> None:
    """The kernel's body; layouts are x's and y's, `dtype` and `zero` point y's, operands are x, constants, y."""
    write_halo(data[2], layouts[1], zero)
    emitter = _Emitter(layer, layouts, dtype, zero, plan, data)
    each_row(layouts[1], emitter.row_block, plan.rows)


class _Emitter:
    """What the nested loops share: geometry, operands, the scratch of the current row block."""

    def __init__(
        self,
        layer: IntConv,
        layouts: tuple[Layout, Layout],
        dtype: str,
        zero: int,
        plan: VnniPlan,
        data: tuple[Operand, Operand, Operand],
    ) -> None:
        self.layer, self.plan, self.dtype, self.zero = layer, plan, dtype, zero
        self.x, self.y = layouts
        self.source, self.constants, self.out = data
        self.rows = _rows(layer, plan.rows)
        self.kernel_w = layer.weight.shape[2]
        reach = (self.kernel_w - 1) * layer.dilation[1]
        self.columns = (plan.tile - 1) * layer.strides[1] + reach + 1
        # Bytes of a block's weights; its multipliers, biases and first sums follow.
        self.weights = self.kernel_w * sum(map(len, self.rows.needs)) * 256

    def row_block(self, n: Expr, h: Expr) -> None:
        """All channels and columns of `plan.rows` output rows."""
        y, layer = self.y, self.layer
        size = self.columns * self.rows.groups * 64
        scratch = T.alloc_buffer((size,), "int32", scope="global")
        # Zero at run time: added to the weights' address, it keeps LLVM from hoisting more loads
        # than there are registers out of the pixel loop and spilling them.
        zero = T.bind(tirx.Cast("int64", self.constants.load(0, "int32", 1)))
        top = T.bind(h * i64(layer.strides[0]) - i64(layer.pads[0]))
        starts = _starts(y.channels) if self.plan.packed == 1 else [0]

        def block(index: Expr) -> None:
            channel = index * i64(64)
            if len(starts) > 1 and y.channels % 64:
                channel = tirx.Min(channel, i64(starts[-1]))
            channel = T.bind(channel)
            constants = T.bind(index * i64(self.weights + 768) + i64(64))
            lines = [
                T.bind(self.x.offset(n, top + i64(row), i64(-layer.pads[1])) + channel)
                for row in self.rows.offsets
            ]
            each(
                -(-y.width // self.plan.tile),
                lambda t: self._tile(scratch, lines, (n, h, channel), t, constants, zero),
            )

        each(len(starts), block)

    def _tile(
        self,
        scratch: tirx.Buffer,
        lines: list[Expr],
        origin: tuple[Expr, Expr, Expr],
        index: Expr,
        constants: Expr,
        zero: Expr,
    ) -> None:
        """Interleave the tile's columns, then all its outputs."""
        plan, layer = self.plan, self.layer
        n, h, channel = origin
        first = T.bind(tirx.Min(index * i64(plan.tile), i64(self.y.width - plan.tile)))
        start = T.bind(first * i64(layer.strides[1]))
        each(self.columns, lambda c: self._interleave(scratch, lines, start, c))
        step = plan.pixels * plan.packed

        def pixels(i: Expr) -> None:
            w = T.bind(tirx.Min(i * i64(step), i64(plan.tile - step)))
            totals = self._dots(scratch, w, T.bind(constants + zero * i))
            for (r, p), total in totals.items():
                pixel = self.y.offset(n, h + i64(r), first + w + i64(p * plan.packed))
                self._finish(total, T.bind(pixel + channel), constants + i64(self.weights))

        each(-(-plan.tile // step), pixels)

    def _slot(self, column: Expr, group: int, vector: int) -> Expr:
        place = column * i64(self.rows.groups * 4) + i64(group * 4 + vector)
        return tirx.Ramp(place * i64(16), i64(1), 16)

    def _interleave(
        self, scratch: tirx.Buffer, lines: list[Expr], start: Expr, column: Expr
    ) -> None:
        """One column of x into the scratch, four rows to a dword."""
        at = T.bind((start + column) * i64(self.x.pixel))
        for group in range(self.rows.groups):
            four = lines[4 * group : 4 * group + 4]
            loads = [T.bind(self.source.load(line + at, "uint8", 64)) for line in four]
            # Rows that fill up the group meet zero weights.
            vectors = _interleave_four(loads + loads[-1:] * (4 - len(loads)))
            for vector, value in enumerate(vectors):
                T.buffer_store(scratch, value, [self._slot(column, group, vector)])

    def _dots(
        self, scratch: tirx.Buffer, w: Expr, constants: Expr
    ) -> dict[tuple[int, int], list[Expr]]:
        """{(row, pixel): four vectors of int32 sums} for one step of the pixel loop."""
        plan, layer = self.plan, self.layer
        totals: dict[tuple[int, int], list[Expr]] = {
            key: [] for key in product(range(plan.rows), range(plan.pixels))
        }
        column = T.bind(w * i64(layer.strides[1]))
        for vector in range(4):
            first = constants + i64(self.weights + 512 + vector * 64)
            sums = dict.fromkeys(totals, T.bind(self.constants.load(first, "int32", 16)))
            loaded: dict[tuple[int, int], Expr] = {}
            at = constants + i64(vector * 64)
            for j, (r, groups) in product(range(self.kernel_w), enumerate(self.rows.needs)):
                for group in groups:
                    weights = T.bind(self.constants.load(at, "int8", 64))
                    at = at + i64(256)
                    for p in range(plan.pixels):
                        c = p * plan.packed * layer.strides[1] + j * layer.dilation[1]
                        if (c, group) not in loaded:
                            slot = self._slot(column + i64(c), group, vector)
                            loaded[c, group] = T.bind(tirx.BufferLoad(scratch, [slot]))
                        codes = tirx.reinterpret("uint8x64", loaded[c, group])
                        name = "llvm.x86.avx512.vpdpbusd.512"
                        sums[r, p] = T.bind(pure("int32", 16, name, sums[r, p], codes, weights))
            for key, value in sums.items():
                totals[key].append(value)
        return totals

    def _finish(self, totals: list[Expr], to: Expr, factors: Expr) -> None:
        """Scale, round, clip and store one output vector."""
        values = []
        for vector, total in enumerate(totals):
            multiplier, bias = (
                T.bind(self.constants.load(factors + i64(start + vector * 64), "float32", 16))
                for start in (0, 256)
            )
            values.append(T.bind(fma(cast("float32", total, 16), multiplier, bias, 16)))
        codes = T.bind(self._codes(values))
        if self.plan.packed > 1 or self.y.channels >= 64:
            self.out.store(to, codes, self.dtype, 64)
            return
        for start, lanes in segments(self.y.channels, 64, self.y.pitch):
            order = [tirx.IntImm("int32", start + i) for i in range(lanes)]
            piece = codes if lanes == 64 else tirx.Shuffle([codes], order)
            self.out.store(to + i64(start), piece, self.dtype, lanes)

    def _codes(self, values: list[Expr]) -> Expr:
        """Four float vectors of interleaved channels -> 64 codes in order: the packs undo it."""
        low, high = self.layer.low, self.layer.high
        if self.plan.bounded:
            ints = [T.bind(pure("int32", 16, "llvm.lrint.v16i32.v16f32", v)) for v in values]
        else:
            ints = [T.bind(round_clip(v, low - self.zero, high - self.zero, 16)) for v in values]
        words = [
            T.bind(pure("int16", 32, "llvm.x86.avx512.packssdw.512", *ints[i : i + 2]))
            for i in (0, 2)
        ]
        name = "packuswb" if self.dtype == "uint8" else "packsswb"
        words = [add_saturated(word, self.zero) for word in words]
        codes = T.bind(pure(self.dtype, 64, f"llvm.x86.avx512.{name}.512", *words))
        if low > (0 if self.dtype == "uint8" else -128):
            codes = T.bind(tirx.Max(codes, splat(low, 64, self.dtype)))
        if high < (255 if self.dtype == "uint8" else 127):
            codes = tirx.Min(codes, splat(high, 64, self.dtype))
        return codes


def _shuffle(a: Expr, b: Expr, lanes: int, group: int, upper: bool) -> Expr:
    """punpckl / punpckh: interleave the lower or upper halves of every 128-bit lane, `group` wide."""
    half = group // 2
    start = half if upper else 0
    order = [
        source + lane * group + start + i
        for lane in range(lanes // group)
        for i in range(half)
        for source in (0, lanes)
    ]
    return T.bind(tirx.Shuffle([a, b], [tirx.IntImm("int32", i) for i in order]))


def _interleave_four(rows: list[Expr]) -> list[Expr]:
    """Four vectors of 64 channels -> four of 16 dwords, each dword one channel of the four rows."""
    low, high = (
        [_shuffle(rows[i], rows[i + 1], 64, 16, upper) for i in (0, 2)] for upper in (False, True)
    )
    vectors = []
    for pair in (low, high):
        words = [T.bind(tirx.reinterpret("uint16x32", value)) for value in pair]
        for upper in (False, True):
            mixed = _shuffle(words[0], words[1], 32, 8, upper)
            vectors.append(T.bind(tirx.reinterpret("int32x16", mixed)))
    return vectors
