"""Convolution sums by im2col and float64 BLAS: exact for 8-bit codes, the yardstick for floats."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from tvmcomp.compress.reference.arithmetic import fma_f32, round_clip
from tvmcomp.graph.layers import Conv, FloatConv, IntConv, TensorSpec

__all__ = ["accumulate", "float_conv", "int_conv"]

_COLUMNS = 1 << 22  # elements of one im2col block: 32 MB


def _windows(x: NDArray[np.generic], layer: Conv, border: float) -> NDArray[np.generic]:
    """[N, OH, OW, KH, KW, C] view of x with its border."""
    top, left, bottom, right = layer.pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=border)
    batch, height, width, channels = x.shape
    _, kernel_h, kernel_w, _ = layer.weight.shape
    (step_h, step_w), (dilate_h, dilate_w) = layer.strides, layer.dilation
    out_h = (height - (kernel_h - 1) * dilate_h - 1) // step_h + 1
    out_w = (width - (kernel_w - 1) * dilate_w - 1) // step_w + 1
    n, h, w, c = x.strides
    return as_strided(
        x,
        (batch, out_h, out_w, kernel_h, kernel_w, channels),
        (n, h * step_h, w * step_w, h * dilate_h, w * dilate_w, c),
        writeable=False,
    )


def accumulate(x: NDArray[np.generic], layer: Conv, border: float) -> NDArray[np.float64]:
    """sum(x * weight) per output in float64; for 8-bit codes every partial sum is exact."""
    windows = _windows(x, layer, border)
    batch, out_h, out_w, kernel_h, kernel_w, channels = windows.shape
    outputs, groups = layer.weight.shape[0], layer.groups
    out = np.empty((batch, out_h, out_w, outputs))
    if groups == channels == outputs:
        weight = layer.weight[..., 0].transpose(1, 2, 0).astype(np.float64)
        out[...] = 0
        for i, j in np.ndindex(kernel_h, kernel_w):
            out += np.multiply(windows[:, :, :, i, j], weight[i, j])
        return out
    inner, outer = channels // groups, outputs // groups
    weight = layer.weight.reshape(groups, outer, -1).transpose(0, 2, 1).astype(np.float64)
    rows = max(1, _COLUMNS // (out_w * kernel_h * kernel_w * inner))
    for n, start, group in np.ndindex(batch, -(-out_h // rows), groups):
        part = slice(start * rows, (start + 1) * rows)
        block = windows[n, part, ..., group * inner : (group + 1) * inner].astype(np.float64)
        product = block.reshape(-1, kernel_h * kernel_w * inner) @ weight[group]
        target = slice(group * outer, (group + 1) * outer)
        out[n, part, :, target] = product.reshape(-1, out_w, outer)
    return out


def int_conv(
    layer: IntConv,
    x: NDArray[np.integer],
    residual: NDArray[np.generic] | None,
    zero_point: int,
    y: TensorSpec,
) -> NDArray[np.generic]:
    """IntConv as its docstring defines it, `zero_point` being x's; int32 sums wrap, as the hardware's do."""
    sums = layer.weight.reshape(len(layer.weight), -1).sum(axis=1, dtype=np.int64)
    total = accumulate(x, layer, zero_point).astype(np.int64) - zero_point * sums
    total = total.astype(np.int32)
    value = fma_f32(total, layer.multiplier, layer.bias)
    if residual is not None and residual.dtype == np.float32:
        value = np.add(value, residual, dtype=np.float32)
    elif residual is not None:
        value = fma_f32(residual, np.float32(layer.residual_scale), value)
    if y.qparams is None:
        return np.clip(value, np.float32(layer.low), np.float32(layer.high))
    bounds = int(layer.low), int(layer.high)
    codes = round_clip(value, *bounds, y.dtype, y.qparams.zero_point)
    if layer.table is None:
        return codes
    return layer.table.astype(y.dtype)[codes.astype(np.int32) - np.iinfo(y.dtype).min]


def float_conv(
    layer: FloatConv, x: NDArray[np.float32], residual: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """FloatConv summed in float64, rounded to float32 once."""
    value = accumulate(x, layer, 0.0) + layer.bias
    if residual is not None:
        value = value + residual
    return np.clip(value, layer.low, layer.high).astype(np.float32)
