"""Quantization with a range taken at run time, and the convolution of such codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmcomp.compress.reference.arithmetic import code_range, fma_f32
from tvmcomp.compress.reference.convolution import accumulate
from tvmcomp.graph.layers import DynamicConv

__all__ = ["dynamic_conv", "dynamic_dequantize", "dynamic_quantize", "fake_quantize"]

_LEVELS = 255


def dynamic_quantize(
    x: NDArray[Any], *, per_row: bool, dtype: str
) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.int32]]:
    """DynamicQuantize as its docstring defines it: codes, scale and zero point."""
    x = x.astype(np.float32)
    axes = (-1,) if per_row else tuple(range(x.ndim))
    lowest = code_range(dtype)[0]
    finite = np.isfinite(x).all(axis=axes, keepdims=True)
    with np.errstate(all="ignore"):
        low = np.fmin(x.min(axis=axes, keepdims=True), np.float32(0))
        high = np.fmax(x.max(axis=axes, keepdims=True), np.float32(0))
        half = fma_f32(high, np.float32(0.5), low * np.float32(-0.5))
        step = half / np.float32(_LEVELS) * np.float32(2)
        scale = np.where(finite, np.where(step == 0, np.float32(1), step), np.float32(np.nan))
        steps = _code(np.rint(-low / scale), np.zeros_like(scale))
        codes = _code(np.rint(x / scale), steps)
    zero_point = steps.astype(np.int32) + lowest
    # Where the scale is NaN the codes are too: `_code` makes them the lowest.
    return (codes.astype(np.int32) + lowest).astype(dtype), scale, zero_point


def _code(steps: NDArray[np.float32], zero: NDArray[np.float32]) -> NDArray[np.float32]:
    """steps + zero in [0, 255]; NaN is 0."""
    return np.clip(np.where(np.isnan(steps), -np.inf, steps), -zero, _LEVELS - zero) + zero


def dynamic_dequantize(
    codes: NDArray[Any], scale: NDArray[np.float32], zero_point: NDArray[np.int32]
) -> NDArray[np.float32]:
    """float32(code - zero_point) * scale."""
    return (codes.astype(np.int32) - zero_point).astype(np.float32) * scale


def fake_quantize(x: NDArray[Any], *, per_row: bool, dtype: str) -> NDArray[np.float32]:
    """The float32 values that the codes of `x` stand for."""
    return dynamic_dequantize(*dynamic_quantize(x, per_row=per_row, dtype=dtype))


def dynamic_conv(
    layer: DynamicConv,
    codes: NDArray[Any],
    scale: NDArray[np.float32],
    zero_point: NDArray[np.int32],
    residual: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """DynamicConv as its docstring defines it; int32 sums wrap. codes: NHWC, scale: [N, H, W, 1] or [1, 1, 1, 1]."""
    # With one zero point per row there is no border.
    border = int(zero_point.reshape(-1)[0]) if any(layer.pads) else 0
    total = accumulate(codes, layer, border).astype(np.int64)
    weights = layer.weight.reshape(len(layer.weight), -1).sum(axis=1, dtype=np.int64)
    acc = (total - zero_point.astype(np.int64) * weights).astype(np.int32)
    with np.errstate(all="ignore"):
        value = fma_f32(acc, scale * layer.weight_scale, layer.bias)
        if residual is not None:
            value = value + residual
        return np.clip(value, np.float32(layer.low), np.float32(layer.high))
