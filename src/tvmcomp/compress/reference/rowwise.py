"""Layers that reduce along the last axis, or read rows: softmax, layer norm, embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmcomp.compress.reference.arithmetic import code_range, fma_f32, round_clip
from tvmcomp.graph.layers import Embedding, IntLayerNorm, IntSoftmax, MaskSteps, TensorSpec

__all__ = ["embedding", "exp_factors", "exp_table", "layer_norm", "mask_steps", "softmax"]

Array = NDArray[Any]

# exp(0) is this power of two, less where the sum of a row would pass the second.
_UNIT_BITS = 22
_SUM_BITS = 30
# Factors below this are zero: a product with a denormal is slow, and far below half a unit anyway.
_NEGLIGIBLE = 2.0**-100


def exp_factors(scale: float, length: int, *, masked: bool, shift: int = 0) -> Array | None:
    """`exps` of an IntSoftmax over rows of `length` codes of `scale`; None if sums would leave int32.

    Two levels cover all differences of two codes; masks need as many as reach a product of zero.
    """
    unit = min(_UNIT_BITS, _SUM_BITS - max(length - 1, 1).bit_length())
    step = float(np.float32(scale)) / (1 << shift)
    levels = 2
    if masked:
        zero = (unit + 2) * np.log(2.0) / step
        while 16**levels - 1 < zero:
            levels += 1
    if unit < 14 or levels > 5:
        return None
    exponents = np.arange(16) * step * np.power(16.0, np.arange(levels))[:, None]
    factors = np.exp(-exponents)
    factors[0] *= 1 << unit
    return np.where(factors < _NEGLIGIBLE, 0.0, factors).astype(np.float32)


def exp_table(exps: Array) -> Array:
    """int32 [16^levels]: e of every d, as IntSoftmax's docstring computes it."""
    d = np.arange(16 ** len(exps))
    value = exps[0][d & 15]
    for level, factors in enumerate(exps[1:], start=1):
        value = value * factors[(d >> (4 * level)) & 15]
    return np.rint(value).astype(np.int32)


def mask_steps(layer: MaskSteps, x: Array) -> Array:
    """MaskSteps as its docstring defines it."""
    excluded = np.isnan(x) | (x == -np.inf)
    with np.errstate(all="ignore"):
        steps = np.rint(x.astype(np.float32) / np.float32(layer.step))
    limit = layer.STEPS_LIMIT
    steps = np.clip(np.where(excluded, 0.0, steps), -limit, limit).astype(np.int32)
    return np.where(excluded, np.int32(layer.STEPS_EXCLUDED), steps)


def softmax(layer: IntSoftmax, x: Array, masks: Sequence[Array], y: TensorSpec) -> Array:
    """IntSoftmax as its docstring defines it."""
    t = x.astype(np.int32) << layer.shift
    if layer.masks:
        computed = iter(masks)
        total = sum(next(computed) if mask is None else mask for mask in layer.masks)
        excluded = np.asarray(total) < layer.EXCLUDED // 2
        t = np.where(excluded, layer.EXCLUDED, np.maximum(t + total, layer.FLOOR))
    most = t.max(axis=-1, keepdims=True)
    d = np.minimum(most - t, 16 ** len(layer.exps) - 1)
    e = exp_table(layer.exps)[d]
    total = e.sum(axis=-1, keepdims=True, dtype=np.int32).astype(np.float32)
    r = np.float32(layer.inverse_scale) / np.maximum(total, np.float32(1))
    r = np.where(most == layer.EXCLUDED, np.float32(0), r)
    zero = 0 if y.qparams is None else y.qparams.zero_point
    return round_clip(e.astype(np.float32) * r, *code_range(y.dtype), y.dtype, zero)


def layer_norm(layer: IntLayerNorm, x: Array, zero_point: int, y: TensorSpec) -> Array:
    """IntLayerNorm as its docstring defines it, `zero_point` being x's."""
    codes = x.astype(np.int64)
    count = codes.shape[-1]
    s1 = codes.sum(axis=-1, keepdims=True)
    s2 = np.square(codes).sum(axis=-1, keepdims=True)
    if layer.centered:
        v = count * s2 - s1 * s1
        d = (count * codes - s1).astype(np.float32)
    else:
        v = s2 - 2 * zero_point * s1 + count * zero_point**2
        d = (codes - zero_point).astype(np.float32)
    r = np.float32(1) / np.sqrt(v.astype(np.float32) + np.float32(layer.epsilon))
    value = fma_f32(d * r, layer.multiplier, layer.bias)
    zero = 0 if y.qparams is None else y.qparams.zero_point
    return round_clip(value, layer.low, layer.high, y.dtype, zero)


def embedding(layer: Embedding, x: Array, y: TensorSpec) -> Array:
    """Embedding as its docstring defines it."""
    rows = len(layer.weight)
    index = np.clip(np.where(x < 0, x + rows, x), 0, rows - 1)
    value, scale = layer.weight[index].astype(np.float32), layer.scale[index][..., None]
    if y.qparams is None:
        return value * scale
    return round_clip(value * scale, *code_range(y.dtype), y.dtype, y.qparams.zero_point)
