"""One numpy function per layer kind, and `compute`, which picks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from tvmcomp.compress.reference.arithmetic import (
    dequantize,
    fma_f32,
    quantize,
    round_clip,
)
from tvmcomp.compress.reference.convolution import float_conv, int_conv
from tvmcomp.compress.reference.dynamic import (
    dynamic_conv,
    dynamic_dequantize,
    dynamic_quantize,
)
from tvmcomp.compress.reference.matmul import float_matmul, int_matmul
from tvmcomp.compress.reference.rowwise import embedding, layer_norm, mask_steps, softmax
from tvmcomp.errors import ModelError
from tvmcomp.graph.layers import (
    Concat,
    Copy,
    Dequantize,
    DynamicConv,
    DynamicDequantize,
    DynamicQuantize,
    Embedding,
    FloatConv,
    FloatMatMul,
    IntAdd,
    IntAffine,
    IntAvgPool,
    IntConv,
    IntLayerNorm,
    IntMatMul,
    IntMul,
    IntSoftmax,
    Layer,
    MaskSteps,
    MaxPool,
    Pad,
    QParams,
    Quantize,
    Resize,
    Slice,
    Table,
    TensorSpec,
    View,
)

__all__ = ["as_image", "average_factors", "compute", "compute_outputs", "qparams_of"]

Array = NDArray[Any]


def qparams_of(spec: TensorSpec) -> QParams:
    """The tensor's qparams; an integer layer on a tensor without them is a broken graph."""
    if spec.qparams is None:
        raise ModelError(
            f"tensor {spec.name!r} ({spec.dtype}) has no qparams; lowering must set them"
        )
    return spec.qparams


def compute_outputs(
    layer: Layer, tensors: Mapping[str, TensorSpec], inputs: Sequence[Array]
) -> tuple[Array, ...]:
    """The arrays of `layer.output` and of the layer's extra outputs."""
    if isinstance(layer, DynamicQuantize):
        dtype = tensors[layer.output].dtype
        return dynamic_quantize(inputs[0], per_row=layer.per_row, dtype=dtype)
    return (compute(layer, tensors, inputs),)


def compute(layer: Layer, tensors: Mapping[str, TensorSpec], inputs: Sequence[Array]) -> Array:
    """The layer's output for `inputs`, arrays of its inputs' specs in order."""
    specs = [tensors[name] for name in layer.inputs]
    return _compute(layer, list(inputs), specs, tensors[layer.output])


@singledispatch
def _compute(layer: Layer, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    raise ModelError(
        f"layer {layer.name!r} of kind {type(layer).__name__} has no numpy definition; "
        "pass `opaque=` to run it"
    )


@_compute.register
def _quantize(layer: Quantize, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    return np.ascontiguousarray(quantize(_permuted(x[0], layer.perm), qparams_of(y), y.dtype))


@_compute.register
def _dequantize(layer: Dequantize, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    return dequantize(x[0], qparams_of(xs[0]))


@_compute.register
def _copy(layer: Copy, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    return np.ascontiguousarray(_permuted(x[0], layer.perm))


@_compute.register
def _view(layer: View, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    return x[0].reshape(y.shape)


@_compute.register
def _int_conv(layer: IntConv, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    residual = as_image(x[1]) if len(x) > 1 else None
    zero_point = qparams_of(xs[0]).zero_point
    return int_conv(layer, as_image(x[0]), residual, zero_point, y).reshape(y.shape)


@_compute.register
def _float_conv(layer: FloatConv, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    residual = as_image(x[1]) if len(x) > 1 else None
    return float_conv(layer, as_image(x[0]), residual).reshape(y.shape)


@_compute.register
def _dynamic_quantize(
    layer: DynamicQuantize, x: list[Array], xs: list[TensorSpec], y: TensorSpec
) -> Array:
    return dynamic_quantize(x[0], per_row=layer.per_row, dtype=y.dtype)[0]


@_compute.register
def _dynamic_dequantize(
    layer: DynamicDequantize, x: list[Array], xs: list[TensorSpec], y: TensorSpec
) -> Array:
    return dynamic_dequantize(*x)


@_compute.register
def _dynamic_conv(layer: DynamicConv, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    codes, scale, zero_point, *residual = (as_image(array) for array in x)
    return dynamic_conv(layer, codes, scale, zero_point, *residual).reshape(y.shape)


@_compute.register
def _int_matmul(layer: IntMatMul, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    qparams = qparams_of(xs[0]), qparams_of(xs[1]), qparams_of(y)
    return int_matmul(layer, x[0], x[1], qparams, y.dtype)


@_compute.register
def _float_matmul(layer: FloatMatMul, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    return float_matmul(layer, x[0], x[1])


@_compute.register
def _table(layer: Table, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    return _look_up(layer.table, x[0], y.dtype)


@_compute.register
def _add(layer: IntAdd, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    a, b = (_centered(codes, spec) for codes, spec in zip(x, xs, strict=True))
    inner = b.astype(np.float32) * np.float32(layer.scale_b)
    return _rounded(fma_f32(a, np.float32(layer.scale_a), inner), layer, y)


@_compute.register
def _mul(layer: IntMul, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    a, b = (_centered(codes, spec) for codes, spec in zip(x, xs, strict=True))
    return _rounded((a * b).astype(np.float32) * np.float32(layer.multiplier), layer, y)


@_compute.register
def _affine(layer: IntAffine, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    return _rounded(fma_f32(x[0], layer.multiplier, layer.bias), layer, y)


@_compute.register
def _softmax(layer: IntSoftmax, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    return softmax(layer, x[0], x[1:], y)


@_compute.register
def _mask_steps(layer: MaskSteps, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    return mask_steps(layer, x[0])


@_compute.register
def _layer_norm(layer: IntLayerNorm, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    return layer_norm(layer, x[0], qparams_of(xs[0]).zero_point, y)


@_compute.register
def _embedding(layer: Embedding, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    return embedding(layer, x[0], y)


@_compute.register
def _concat(layer: Concat, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    computed = iter(x)
    constants = layer.constants or (None,) * len(x)
    values = [next(computed) if constant is None else constant for constant in constants]
    tables = layer.tables or (None,) * len(values)
    parts = [
        part if table is None else _look_up(table, part, y.dtype)
        for part, table in zip(values, tables, strict=True)
    ]
    return np.concatenate(parts, axis=layer.axis)


@_compute.register
def _slice(layer: Slice, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    picked = zip(layer.begin, layer.strides, y.shape, strict=True)
    return x[0][np.ix_(*(start + np.arange(size) * step for start, step, size in picked))]


@_compute.register
def _pad(layer: Pad, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    sizes = zip(layer.before, x[0].shape, y.shape, strict=True)
    widths = [(before, whole - size - before) for before, size, whole in sizes]
    return np.pad(x[0], widths, constant_values=layer.value)


@_compute.register
def _max_pool(layer: MaxPool, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    lowest = -np.inf if y.dtype == "float32" else np.iinfo(y.dtype).min
    return _pooled(x[0], layer, layer.dilation, lowest, np.max).reshape(y.shape)


def average_factors(
    layer: IntAvgPool, x: TensorSpec, y: TensorSpec
) -> tuple[NDArray[np.float32], np.float32]:
    """m (a scalar, or [OH, OW, 1] where the divisor excludes the border) and b, from float64."""
    qx, qy = qparams_of(x), qparams_of(y)
    ratio = float(np.float32(qx.scale)) / float(np.float32(qy.scale))
    b = np.float32(-qx.zero_point * ratio)
    if layer.count_include_pad:
        return np.asarray(ratio / (layer.kernel[0] * layer.kernel[1]), np.float32), b
    ones = np.ones((1, *x.shape[1:3], 1), np.int64)
    count = _pooled(ones, layer, (1, 1), 0, np.sum)[0]
    return (ratio / np.maximum(count, 1)).astype(np.float32), b


@_compute.register
def _avg_pool(layer: IntAvgPool, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    border = qparams_of(xs[0]).zero_point if layer.count_include_pad else 0
    total = _pooled(x[0].astype(np.int32), layer, (1, 1), border, np.sum).astype(np.int32)
    m, b = average_factors(layer, xs[0], y)
    return _rounded(fma_f32(total, m, b), layer, y).reshape(y.shape)


@_compute.register
def _resize(layer: Resize, x: list[Array], xs: list[TensorSpec], y: TensorSpec) -> Array:
    wide = _weighted(x[0].astype(np.float32), layer.index_w, layer.weight_w, axis=2)
    tall = _weighted(wide, layer.index_h, layer.weight_h, axis=1)
    if y.dtype == "float32":
        return tall
    info = np.iinfo(y.dtype)
    return round_clip(tall, info.min, info.max, y.dtype)


def _weighted(x: Array, index: Array, weight: Array, axis: int) -> NDArray[np.float32]:
    """fma(x[index1], weight1, x[index0] * weight0) along `axis`; one tap is the product alone."""
    shape = [1] * x.ndim
    shape[axis] = -1
    taps = weight.astype(np.float32)
    first = np.take(x, index[:, 0], axis) * taps[:, 0].reshape(shape)
    if index.shape[1] == 1:
        return first
    return fma_f32(np.take(x, index[:, 1], axis), taps[:, 1].reshape(shape), first)


def _centered(codes: Array, spec: TensorSpec) -> NDArray[np.int32]:
    return codes.astype(np.int32) - qparams_of(spec).zero_point


def _rounded(
    value: NDArray[np.float32], layer: IntAdd | IntMul | IntAffine | IntAvgPool, y: TensorSpec
) -> Array:
    """Codes of a value in steps of y."""
    return round_clip(value, layer.low, layer.high, y.dtype, qparams_of(y).zero_point)


def as_image(x: Array) -> Array:
    """[N, H, W, C]: ranks below 4 gain leading ones, above 4 fold into the batch; dense is a 1x1 convolution."""
    return x.reshape(-1, *((1, 1, 1, *x.shape)[-3:]))


def _permuted(x: Array, perm: tuple[int, ...] | None) -> Array:
    return x if perm is None else x.transpose(perm)


def _look_up(table: Array, x: Array, dtype: str) -> Array:
    return table.astype(dtype)[x.astype(np.int32) - np.iinfo(x.dtype).min]


def _pooled(
    x: Array,
    layer: MaxPool | IntAvgPool,
    dilation: tuple[int, int],
    border: float,
    reduce: Callable[..., Array],
) -> Array:
    """`reduce` over every window of x with its border."""
    top, left, bottom, right = layer.pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=border)
    out = [
        (size - (kernel - 1) * dilate - 1) // step + 1
        for size, kernel, dilate, step in zip(
            x.shape[1:3], layer.kernel, dilation, layer.strides, strict=True
        )
    ]
    n, h, w, c = x.strides
    windows = as_strided(
        x,
        (x.shape[0], *out, x.shape[3], *layer.kernel),
        (n, h * layer.strides[0], w * layer.strides[1], c, h * dilation[0], w * dilation[1]),
        writeable=False,
    )
    return reduce(windows, axis=(4, 5))
