"""IntSoftmax and the steps of its masks: row maximum, exponentials from registers, exact sum, one fma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.compress.reference import code_range, exp_table
from tvmcomp.graph.layers import IntSoftmax, Layer, MaskSteps, TensorSpec
from tvmcomp.kernels.broadcast import Broadcast
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.reduce import Accumulator, across, each_chunk, inside
from tvmcomp.kernels.rows import (
    each_vector,
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
    i64,
    pure,
    round_clip,
    splat,
)

__all__ = ["build_mask_steps", "build_softmax"]

Tensors = Mapping[str, TensorSpec]
Layouts = Mapping[str, Layout]
_WIDEST = 64


def build_mask_steps(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """float32 -> int32 steps; -inf and NaN are told apart before dividing, which may overflow."""
    if not isinstance(layer, MaskSteps):
        return None
    x, y = layouts[layer.inputs[0]], layouts[layer.output]
    if not same_dims(x, y) or tensors[layer.inputs[0]].dtype != "float32":
        return None
    limit = layer.STEPS_LIMIT

    def body(data: Operand, out: Operand) -> None:
        write_halo(out, y, 0)

        def vector(to: Expr, at: list[Expr], lanes: int) -> None:
            value = T.bind(data.load(at[0], "float32", lanes))
            steps = round_clip(value / splat(layer.step, lanes), -limit, limit, lanes)
            finite = value >= splat(float(np.finfo(np.float32).min), lanes)
            excluded = splat(layer.STEPS_EXCLUDED, lanes, "int32")
            out.store(to, tirx.Select(finite, T.bind(steps), excluded), "int32", lanes)

        each_vector(y, [x], isa.lanes, vector)

    key = kernel_key("mask_steps", isa, x, y, layer.step)
    return Kernel(key, build_func("mask_steps", ("x", "y"), body), "softmax", isa.name)


class _Exp:
    """e of IntSoftmax for vectors of d: products of permuted registers, or one look-up per lane.

    `start` is where its constants lie: the factors where registers hold 8 or 16 of them, else the whole table.
    """

    def __init__(self, isa: Isa, exps: np.ndarray, start: int) -> None:
        self._registers = isa.lanes if isa.lanes in (8, 16) else 0
        self._levels = len(exps)
        self._start = start
        self.constants = exps if self._registers else exp_table(exps)

    def __call__(self, constants: Operand, d: Expr, lanes: int) -> Expr:
        """int32 lanes."""
        if not self._registers:
            return self._each_lane(constants, d, lanes)
        value = None
        for level in range(self._levels):
            digit = d if level == 0 else T.bind(d >> splat(4 * level, lanes, "int32"))
            factor = self._permuted(constants, level, digit, lanes)
            value = factor if value is None else T.bind(value * factor)
        return pure("int32", lanes, f"llvm.lrint.v{lanes}i32.v{lanes}f32", value)

    def _permuted(self, constants: Operand, level: int, digit: Expr, lanes: int) -> Expr:
        """The factor of the lowest four bits of every lane of `digit`."""
        at = self._start + 64 * level
        if lanes == 16:
            factors = constants.load(i64(at), "float32", 16)
            return T.bind(pure("float32", 16, "llvm.x86.avx512.permvar.sf.512", factors, digit))
        low, high = (
            T.bind(pure("float32", 8, "llvm.x86.avx2.permps", half, digit))
            for half in (constants.load(i64(at + 32 * i), "float32", 8) for i in (0, 1))
        )
        bit = digit & splat(8, lanes, "int32")
        return T.bind(tirx.Select(bit > splat(0, lanes, "int32"), high, low))

    def _each_lane(self, constants: Operand, d: Expr, lanes: int) -> Expr:
        values = []
        for lane in range(lanes):
            index = tirx.Shuffle([d], [tirx.IntImm("int32", lane)]) if lanes > 1 else d
            at = i64(self._start) + tirx.Cast("int64", index) * i64(4)
            values.append(T.bind(constants.load(at, "int32", 1)))
        if lanes == 1:
            return values[0]
        return tirx.Shuffle(values, [tirx.IntImm("int32", i) for i in range(lanes)])


class _Row:
    """One row of one softmax: a scratch of its length holds t, then e."""

    def __init__(
        self, layer: IntSoftmax, dtypes: tuple[str, str], isa: Isa, exp: _Exp, length: int
    ) -> None:
        self._layer = layer
        self._x_type, self._y_type = dtypes
        self._isa = isa
        self._exp = exp
        self._length = length
        # Behind the row there is room for the widest vector.
        self._scratch = T.alloc_buffer((length + _WIDEST,), "int32", scope="global")

    def _read(self, start: Expr, lanes: int) -> Expr:
        at = start if lanes == 1 else tirx.Ramp(start, i64(1), lanes)
        return tirx.BufferLoad(self._scratch, [at])

    def _write(self, start: Expr, value: Expr, lanes: int) -> None:
        at = start if lanes == 1 else tirx.Ramp(start, i64(1), lanes)
        T.buffer_store(self._scratch, value, [at])

    def largest_code(self, x: Operand, at: Expr) -> Expr:
        """The largest code of the row, int32."""
        lanes, dtype = self._isa.bytes, self._x_type
        least = code_range(dtype)[0]
        best = Accumulator(least, lanes, dtype)

        def chunk(start: Expr, valid: int) -> None:
            codes = inside(x.load(at + start, dtype, lanes), valid, lanes, dtype, least)
            best.set(tirx.Max(best.value, codes))

        each_chunk(self._length, lanes, chunk)
        kind = "umax" if dtype == "uint8" else "smax"
        return T.bind(tirx.Cast("int32", T.bind(across(kind, best.value, dtype, lanes))))

    def masked(self, x: Operand, at: Expr, masks: Sequence[tuple[Operand, Expr, bool]]) -> Expr:
        """t into the scratch, and the largest t; masks: operand, offset of the row, one for all its elements."""
        lanes, layer = self._isa.lanes, self._layer
        best = Accumulator(layer.EXCLUDED, lanes)

        def chunk(start: Expr, valid: int) -> None:
            total = None
            for data, offset, single in masks:
                if single:
                    steps = splat(data.load(offset, "int32", 1), lanes, "int32")
                else:
                    steps = data.load(offset + start * i64(4), "int32", lanes)
                total = steps if total is None else total + steps
            total = T.bind(total)
            code = x.widen(at + start, self._x_type, lanes, "int32")
            if layer.shift:
                code = code << splat(layer.shift, lanes, "int32")
            t = T.bind(tirx.Max(code + total, splat(layer.FLOOR, lanes, "int32")))
            excluded = splat(layer.EXCLUDED, lanes, "int32")
            gone = total < splat(layer.EXCLUDED // 2, lanes, "int32")
            t = T.bind(
                inside(tirx.Select(gone, excluded, t), valid, lanes, "int32", layer.EXCLUDED)
            )
            self._write(start, t, lanes)
            best.set(tirx.Max(best.value, t))

        each_chunk(self._length, lanes, chunk)
        return T.bind(across("smax", best.value, "int32", lanes))

    def exponentials(self, x: Operand, at: Expr, constants: Operand, most: Expr) -> Expr:
        """e into the scratch, and their sum."""
        lanes, layer = self._isa.lanes, self._layer
        total = Accumulator(0, lanes)
        last = 16 ** len(layer.exps) - 1

        def chunk(start: Expr, valid: int) -> None:
            if layer.masks:
                d = tirx.Min(
                    splat(most, lanes, "int32") - self._read(start, lanes),
                    splat(last, lanes, "int32"),
                )
            else:
                code = x.widen(at + start, self._x_type, lanes, "int32")
                code = splat(most, lanes, "int32") - code
                # Lanes behind the row may lie above its maximum.
                d = inside(code, valid, lanes, "int32", 0)
            e = self._exp(constants, T.bind(d), lanes)
            e = T.bind(inside(T.bind(e), valid, lanes, "int32", 0))
            self._write(start, e, lanes)
            total.set(total.value + e)

        each_chunk(self._length, lanes, chunk)
        return T.bind(across("add", total.value, "int32", lanes))

    def store(self, y: Operand, to: Expr, room: int, ratio: Expr, zero: int) -> None:
        """The codes of y."""
        bounds = code_range(self._y_type)

        def segment(start: Expr, lanes: int) -> None:
            e = cast("float32", self._read(start, lanes), lanes)
            value = e * splat(ratio, lanes)
            codes = round_clip(value, *bounds, lanes, self._y_type, zero)
            y.store(to + start, codes, self._y_type, lanes)

        each_segment(self._length, self._isa.bytes, room, segment)


def build_softmax(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """Rows of channels, one after the other; constants: the exponentials, then constant masks."""
    if not isinstance(layer, IntSoftmax):
        return None
    source, spec = tensors[layer.inputs[0]], tensors[layer.output]
    x, y = layouts[layer.inputs[0]], layouts[layer.output]
    if not same_dims(x, y):
        return None
    zero = qparams_of(spec).zero_point
    exp = _Exp(isa, layer.exps, 0)
    masks = _masks(layer, tensors, layouts)
    if any(mask is None for mask in masks):
        return None
    arrays = [mask for mask in layer.masks if mask is not None]
    starts = np.cumsum([-(-exp.constants.nbytes // 64) * 64, *(_padded(m) for m in arrays)])
    constant_at = iter(int(start) for start in starts)
    where = [i64(next(constant_at)) if mask is not None else None for mask in layer.masks]
    rows = split_rows([x, y]) if not layer.masks else [x, y]

    def body(*operands: Operand) -> None:
        data, constants, out = operands[0], operands[-2], operands[-1]
        write_halo(out, y, zero)

        def row(n: Expr, h: Expr) -> None:
            base_x, base_y = (T.bind(place.offset(n, h, i64(0))) for place in rows)
            scratch = _Row(layer, (source.dtype, spec.dtype), isa, exp, x.channels)

            def pixel(w: Expr) -> None:
                at = T.bind(base_x + w * i64(x.pixel))
                if layer.masks:
                    computed = iter(operands[1:-2])
                    read = []
                    for start, mask in zip(where, masks, strict=True):
                        assert mask is not None
                        offset = mask.offset(n, h, w)
                        operand = next(computed) if start is None else constants
                        offset = T.bind(offset if start is None else offset + start)
                        read.append((operand, offset, mask.single))
                    most = scratch.masked(data, at, read)
                else:
                    most = scratch.largest_code(data, at)
                total = scratch.exponentials(data, at, constants, most)
                ratio = tirx.FloatImm("float32", layer.inverse_scale) / tirx.Max(
                    tirx.Cast("float32", total), tirx.FloatImm("float32", 1.0)
                )
                if layer.masks:
                    gone = most == tirx.IntImm("int32", layer.EXCLUDED)
                    ratio = tirx.Select(gone, tirx.FloatImm("float32", 0.0), ratio)
                scratch.store(out, base_y + w * i64(y.pixel), y.pitch, T.bind(ratio), zero)

            each(rows[1].width, pixel)

        each_row(rows[1], row)

    names = ("x", *(f"mask{i}" for i in range(len(layer.inputs) - 1)), "constants", "y")
    baked = (layer.inverse_scale, layer.shift, len(layer.exps), where, masks, zero)
    dtypes = (source.dtype, spec.dtype)
    key = kernel_key("softmax", isa, x, y, dtypes, baked, halo_code(spec))
    blob = pack_constants(exp.constants, *arrays)
    func = build_func("softmax", names, body)
    return Kernel(key, func, "softmax", isa.name, constants=blob)


def _padded(array: np.ndarray) -> int:
    return -(-array.nbytes // 64) * 64


def _masks(layer: IntSoftmax, tensors: Tensors, layouts: Layouts) -> list[Broadcast | None]:
    """How each mask broadcasts; None for one that does not."""
    whole = tensors[layer.inputs[0]].shape
    computed = iter(layer.inputs[1:])
    found = []
    for mask in layer.masks:
        if mask is None:
            name = next(computed)
            found.append(Broadcast.of(tensors[name].shape, whole, layouts[name]))
        else:
            found.append(Broadcast.of(mask.shape, whole, Layout.dense(mask.shape, 4)))
    return found
