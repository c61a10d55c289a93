"""The float simulation of one layer: dequantized inputs, float64 arithmetic, quantized result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmcomp.compress.reference.arithmetic import code_range
from tvmcomp.compress.reference.convolution import accumulate
from tvmcomp.compress.reference.layers import as_image, compute, qparams_of
from tvmcomp.compress.reference.matmul import product
from tvmcomp.graph.layers import (
    Embedding,
    IntAdd,
    IntAffine,
    IntAvgPool,
    IntConv,
    IntLayerNorm,
    IntMatMul,
    IntMul,
    IntSoftmax,
    Layer,
    Resize,
    TensorSpec,
)

__all__ = ["simulate_layer"]

Array = NDArray[Any]


def simulate_layer(
    layer: Layer, tensors: Mapping[str, TensorSpec], inputs: Sequence[Array]
) -> Array:
    """What a float implementation between quantize and dequantize gives for the same codes.

    Integer layers differ from it by at most one step. A layer's scales are read back from its
    constants (sw = multiplier*sy/sx), so this checks the arithmetic, not the choice of constants.
    Layers that do not round (pools of maxima, tables, copies, concatenation) are returned exactly.
    """
    y = tensors[layer.output]
    xs = [tensors[name] for name in layer.inputs]
    if isinstance(layer, IntConv):
        return _conv(layer, xs, y, inputs)
    if isinstance(layer, IntAffine | IntSoftmax | IntLayerNorm | Embedding):
        return _steps(_ROWWISE[type(layer)](layer, xs[0], y, inputs), layer, y)
    real = [
        (array.astype(np.float64) - spec.qparams.zero_point) * float(np.float32(spec.qparams.scale))
        if spec.qparams is not None
        else array.astype(np.float64)
        for array, spec in zip(inputs, xs, strict=True)
    ]
    if isinstance(layer, IntAdd):
        # scale_a = sa/sy and scale_b = sb/sy: exact enough in float64 to be undone.
        return _codes(real[0] + real[1], y, layer.low, layer.high)
    if isinstance(layer, IntMul):
        return _codes(real[0] * real[1], y, layer.low, layer.high)
    if isinstance(layer, IntMatMul):
        sx, sy = (np.prod([qparams_of(t).scale for t in part]) for part in (xs, (y,)))
        scale = float(np.float32(layer.multiplier)) * sy / sx
        return _codes(product(layer, *real) * scale, y, layer.low, layer.high)
    if isinstance(layer, IntAvgPool):
        return _codes(_average(layer, real[0]), y, layer.low, layer.high).reshape(y.shape)
    if isinstance(layer, Resize) and y.dtype != "float32":
        info = np.iinfo(y.dtype)
        return _codes(_resized(layer, real[0]), y, info.min, info.max)
    return compute(layer, tensors, inputs)


def _codes(real: Array, y: TensorSpec, low: int, high: int) -> Array:
    qparams = qparams_of(y)
    steps = np.rint(real / float(np.float32(qparams.scale))) + qparams.zero_point
    return np.clip(steps, low, high).astype(y.dtype)


def _conv(
    layer: IntConv, xs: Sequence[TensorSpec], y: TensorSpec, inputs: Sequence[Array]
) -> Array:
    x = as_image(inputs[0])
    total = accumulate(x.astype(np.int32) - qparams_of(xs[0]).zero_point, layer, 0.0)
    value = total * layer.multiplier.astype(np.float64) + layer.bias
    if len(inputs) > 1:
        residual = as_image(inputs[1]).astype(np.float64)
        value = value + residual * float(np.float32(layer.residual_scale))
    if y.dtype == "float32":
        return np.clip(value, layer.low, layer.high).astype(np.float32).reshape(y.shape)
    steps = np.rint(value) + qparams_of(y).zero_point
    codes = np.clip(steps, layer.low, layer.high).astype(np.int32)
    if layer.table is not None:
        codes = layer.table[codes - np.iinfo(y.dtype).min]
    return codes.astype(y.dtype).reshape(y.shape)


def _steps(value: Array, layer: Layer, y: TensorSpec) -> Array:
    """Codes of a value in steps of y; a float result as it is."""
    if y.qparams is None:
        return value.astype(np.float32)
    low, high = code_range(y.dtype)
    bounds = getattr(layer, "low", low), getattr(layer, "high", high)
    return np.clip(np.rint(value) + y.qparams.zero_point, *bounds).astype(y.dtype)


def _affine(layer: IntAffine, x: TensorSpec, y: TensorSpec, inputs: Sequence[Array]) -> Array:
    return inputs[0] * layer.multiplier.astype(np.float64) + layer.bias


def _softmax(layer: IntSoftmax, x: TensorSpec, y: TensorSpec, inputs: Sequence[Array]) -> Array:
    """Scores plus masks as real numbers; the masks are read back from their steps."""
    last = int(np.flatnonzero(layer.exps[0])[-1])
    step = float(np.log(np.float64(layer.exps[0, 0]) / layer.exps[0, last])) / last
    computed = iter(inputs[1:])
    real = inputs[0] * step * (1 << layer.shift)
    for mask in layer.masks:
        steps = np.asarray(next(computed) if mask is None else mask, np.float64)
        value = steps * step
        real = real + np.where(steps == layer.EXCLUDED, -np.inf, value)
    most = real.max(axis=-1, keepdims=True)
    e = np.exp(real - np.where(np.isinf(most), 0.0, most))
    share = e / np.maximum(e.sum(axis=-1, keepdims=True), 1e-300)
    return share * layer.inverse_scale


def _layer_norm(
    layer: IntLayerNorm, x: TensorSpec, y: TensorSpec, inputs: Sequence[Array]
) -> Array:
    codes = inputs[0].astype(np.float64) - qparams_of(x).zero_point
    count = codes.shape[-1]
    if layer.centered:
        codes = (codes - codes.mean(axis=-1, keepdims=True)) * count
    power = np.square(codes).mean(axis=-1, keepdims=True)
    scaled = codes / np.sqrt(power * (1 if layer.centered else count) + layer.epsilon)
    return scaled * layer.multiplier.astype(np.float64) + layer.bias


def _embedding(layer: Embedding, x: TensorSpec, y: TensorSpec, inputs: Sequence[Array]) -> Array:
    rows = len(layer.weight)
    index = np.clip(np.where(inputs[0] < 0, inputs[0] + rows, inputs[0]), 0, rows - 1)
    return layer.weight[index].astype(np.float64) * layer.scale[index][..., None]


_ROWWISE: Mapping[type[Layer], Callable[..., Array]] = {
    IntAffine: _affine,
    IntSoftmax: _softmax,
    IntLayerNorm: _layer_norm,
    Embedding: _embedding,
}


def _average(layer: IntAvgPool, real: Array) -> Array:
    top, left, bottom, right = layer.pads
    border = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded, inside = np.pad(real, border), np.pad(np.ones_like(real), border)
    window = (1, 2)
    views = [
        np.lib.stride_tricks.sliding_window_view(array, layer.kernel, window)[
            :, :: layer.strides[0], :: layer.strides[1]
        ]
        for array in (padded, inside)
    ]
    total, valid = (view.sum((-2, -1)) for view in views)
    count = layer.kernel[0] * layer.kernel[1] if layer.count_include_pad else np.maximum(valid, 1)
    return total / count


def _resized(layer: Resize, real: Array) -> Array:
    def along(x: Array, index: Array, weight: Array, axis: int) -> Array:
        shape = [1] * x.ndim
        shape[axis] = -1
        parts = [
            np.take(x, index[:, tap], axis) * weight[:, tap].astype(np.float64).reshape(shape)
            for tap in range(index.shape[1])
        ]
        return np.sum(parts, axis=0)

    wide = along(real, layer.index_w, layer.weight_w, 2)
    return along(wide, layer.index_h, layer.weight_h, 1)
