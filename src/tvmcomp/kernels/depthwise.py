"""Depthwise convolution, integer and float: one filter per channel, vectors along the channels.

With VNNI and u8 activations `depthwise_vnni.py` serves it; everything else is the plain loop here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.graph.layers import Conv, FloatConv, IntConv, Layer, TensorSpec
from tvmcomp.kernels.depthwise_vnni import VnniPlan, emit_vnni, first_sums, pack_vnni, plan_vnni
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.rows import halo_code, kernel_key, pack_constants
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

__all__ = ["build_depthwise"]

_MAX_TAPS = 64


def build_depthwise(
    layer: Layer,
    tensors: Mapping[str, TensorSpec],
    layouts: Mapping[str, Layout],
    isa: Isa,
    plan: VnniPlan | None = None,
) -> Kernel | None:
    """One input channel per group; constants: weights, multipliers and biases in the kernel's order."""
    if not isinstance(layer, IntConv | FloatConv):
        return None
    x, y = layouts[layer.inputs[0]], layouts[layer.output]
    if layer.groups != x.channels or y.channels != layer.weight.shape[0]:
        return None
    if isinstance(layer, IntConv) and layer.table is not None:
        return None
    if layer.weight.shape[1] * layer.weight.shape[2] > _MAX_TAPS or not _halo_covers(layer, x, y):
        return None
    operands = [layouts[name] for name in layer.inputs] + [y]
    specs = [tensors[name] for name in (*layer.inputs, layer.output)]
    dtypes = [spec.dtype for spec in specs]
    zero = halo_code(specs[-1])
    geometry = (layer.weight.shape, layer.strides, layer.pads, layer.dilation)
    clip = (layer.low, layer.high)
    names = [*("x", "residual")[: len(layer.inputs)], "constants", "y"]
    # vpdpbusd multiplies unsigned by signed; a residual is rare enough for the plain loop.
    vnni = isa.vnni and dtypes[0] == "uint8" and len(dtypes) == 2 and x.channels == y.channels
    vnni = vnni and layer.weight.dtype == np.int8 and dtypes[-1] != "float32"
    if vnni and isinstance(layer, IntConv):
        plan = plan or plan_vnni(layer, x, y)
        if not plan.fits(y):
            return None
        func = build_func(
            "depthwise", names, lambda *data: emit_vnni(layer, (x, y), dtypes[-1], zero, plan, data)
        )
        key = kernel_key("depthwise_vnni", isa, operands, dtypes, geometry, clip, zero, plan)
        blob = pack_vnni(layer, x, halo_code(specs[0]), plan)
        return Kernel(key, func, "depthwise", isa.name, constants=blob, plan=plan)
    func = build_func(
        "depthwise", names, lambda *data: _emit_plain(layer, operands, dtypes, zero, isa, data)
    )
    scale = _residual_scale(layer)
    stored = str(layer.weight.dtype)
    key = kernel_key("depthwise_plain", isa, operands, dtypes, stored, geometry, clip, zero, scale)
    return Kernel(key, func, "depthwise", isa.name, constants=_pack_plain(layer, specs[0], y))


def _halo_covers(layer: Conv, x: Layout, y: Layout) -> bool:
    """Whether every tap of every window is inside x and its halo."""
    for axis, (size, out) in enumerate(((x.height, y.height), (x.width, y.width))):
        before = layer.pads[axis]
        reach = (layer.weight.shape[1 + axis] - 1) * layer.dilation[axis]
        last = (out - 1) * layer.strides[axis] + reach - before
        if before > x.halo or last > size - 1 + x.halo:
            return False
    return True


def _pitch(channels: int) -> int:
    return -(-channels // 64) * 64


def _pack_plain(layer: IntConv | FloatConv, x: TensorSpec, y: Layout) -> np.ndarray:
    """Weights [tap][channel], then the multiplier, the bias and the first sum, channels padded; floats: the bias."""
    padding = (0, _pitch(y.channels) - y.channels)
    taps = layer.weight.reshape(y.channels, -1).T
    parts = [np.pad(taps, ((0, 0), padding))]
    if isinstance(layer, IntConv):
        parts.append(np.pad(layer.multiplier.astype(np.float32), padding))
    parts.append(np.pad(layer.bias.astype(np.float32), padding))
    if isinstance(layer, IntConv):
        parts.append(np.pad(first_sums(layer, halo_code(x)), padding))
    return pack_constants(*parts)


def _emit_plain(
    layer: IntConv | FloatConv,
    layouts: list[Layout],
    dtypes: list[str],
    zero: int,
    isa: Isa,
    data: tuple[Operand, ...],
) -> None:
    """Channels outside, pixels inside, taps written out: the weights of a channel vector stay put."""
    source, constants, out = data[0], data[-2], data[-1]
    x, y = layouts[0], layouts[-1]
    real = isinstance(layer, FloatConv)
    _, kernel_h, kernel_w, _ = layer.weight.shape
    taps = [(i, j) for i in range(kernel_h) for j in range(kernel_w)]
    pitch = _pitch(y.channels)
    weight_dtype = str(layer.weight.dtype)
    scales = len(taps) * pitch * layer.weight.itemsize
    repeat = y.channels // x.channels
    write_halo(out, y, zero)

    def read(at: Expr, start: Expr, lanes: int) -> Expr:
        if repeat == 1:
            value = source.load(at + start * i64(x.itemsize), dtypes[0], lanes)
        else:
            each_lane = [
                T.bind(
                    source.load(
                        at + tirx.FloorDiv(start + i64(lane), i64(repeat)) * i64(x.itemsize),
                        dtypes[0],
                        1,
                    )
                )
                for lane in range(lanes)
            ]
            order = [tirx.IntImm("int32", lane) for lane in range(lanes)]
            value = each_lane[0] if lanes == 1 else T.bind(tirx.Shuffle(each_lane, order))
        return T.bind(value if real else cast("int32", value, lanes))

    def weight(tap: int, start: Expr, lanes: int) -> Expr:
        at = (i64(tap * pitch) + start) * i64(layer.weight.itemsize)
        value = constants.load(at, weight_dtype, lanes)
        return T.bind(value if real else cast("int32", value, lanes))

    def row(n: Expr, h: Expr) -> None:
        top = T.bind(h * i64(layer.strides[0]) - i64(layer.pads[0]))

        def segment(start: Expr, lanes: int) -> None:
            weights = [weight(tap, start, lanes) for tap in range(len(taps))]
            factors = [
                T.bind(
                    constants.load(i64(scales + part * pitch * 4) + start * i64(4), dtype, lanes)
                )
                for part, dtype in enumerate(("float32", "float32", "int32")[: 1 if real else 3])
            ]

            def pixel(w: Expr) -> None:
                left = T.bind(w * i64(layer.strides[1]) - i64(layer.pads[1]))
                total = factors[-1]
                for (i, j), factor in zip(taps, weights, strict=True):
                    at = x.offset(
                        n, top + i64(i * layer.dilation[0]), left + i64(j * layer.dilation[1])
                    )
                    value = read(at, start, lanes)
                    if real and isa.fma:
                        total = T.bind(fma(value, factor, total, lanes))
                    else:
                        total = T.bind(total + value * factor)
                if not real:
                    multiplier, bias, _ = factors
                    total = T.bind(fma(cast("float32", total, lanes), multiplier, bias, lanes))
                if len(layouts) == 3:
                    at = layouts[1].offset(n, h, w) + start * i64(layouts[1].itemsize)
                    if dtypes[1] == "float32":
                        total = T.bind(total + data[1].load(at, "float32", lanes))
                    else:
                        codes = T.bind(data[1].widen(at, dtypes[1], lanes))
                        total = T.bind(
                            fma(codes, splat(_residual_scale(layer), lanes), total, lanes)
                        )
                to = y.offset(n, h, w) + start * i64(y.itemsize)
                out.store(to, _clipped(layer, total, lanes, dtypes[-1], zero), dtypes[-1], lanes)

            each(y.width, pixel)

        each_segment(y.channels, isa.lanes, y.pitch, segment)

    each_row(y, row)


def _residual_scale(layer: IntConv | FloatConv) -> float:
    return layer.residual_scale if isinstance(layer, IntConv) else 1.0


def _clipped(layer: IntConv | FloatConv, value: Expr, lanes: int, dtype: str, zero: int) -> Expr:
    if dtype != "float32":
        return round_clip(value, layer.low, layer.high, lanes, dtype, zero)
    if np.isfinite(layer.low):
        value = T.bind(tirx.Max(value, splat(layer.low, lanes)))
    if np.isfinite(layer.high):
        value = tirx.Min(value, splat(layer.high, lanes))
    return value
