"""The layer graph: what a network is after lowering, one frozen dataclass per kind of layer.

A canonical Relax module (`graph/canonical.py`) is float or QDQ; `build/lower.py` turns it into this form, in
which every fusion has been decided and every integer layer's arithmetic is fixed. `compress/reference.py`
defines each layer's result in numpy, `kernels/` implements it, `schedule/` chooses between implementations.

Logical shapes are NHWC for images; a dense layer on [M, K] is a 1x1 convolution on [1, 1, M, K].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tvmcomp.graph.layer import Layer, QParams, TensorSpec
from tvmcomp.graph.rowwise_layers import Embedding, IntLayerNorm, IntSoftmax, MaskSteps

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

__all__ = [
    "Concat",
    "Conv",
    "Copy",
    "Dequantize",
    "DynamicConv",
    "DynamicDequantize",
    "DynamicQuantize",
    "Embedding",
    "FloatConv",
    "FloatMatMul",
    "IntAdd",
    "IntAffine",
    "IntAvgPool",
    "IntConv",
    "IntLayerNorm",
    "IntMatMul",
    "IntMul",
    "IntSoftmax",
    "Layer",
    "LayerGraph",
    "MaskSteps",
    "MatMul",
    "MaxPool",
    "Opaque",
    "Pad",
    "QParams",
    "Quantize",
    "Resize",
    "Slice",
    "Table",
    "TensorSpec",
    "View",
]


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantize(Layer):
    """float32 -> codes: y = saturate(rint(transpose(x, perm) / scale) + zero_point); NaN becomes the lowest code."""

    perm: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Dequantize(Layer):
    """codes -> float32: y = float32(x - zero_point) * scale."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Layer):
    """Geometry shared by integer and float convolutions; `inputs` is (x,) or (x, residual).

    weight: [O, KH, KW, I/groups]; pads: (top, left, bottom, right); the border of x counts as real zero,
    which in codes is x's zero point.
    """

    weight: np.ndarray
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class IntConv(Conv):
    """acc = sum((x_code - zero_point_x) * w_code) in int32 (border = zero point), then

        v = fma(float32(acc), multiplier[o], bias[o])            float32, one rounding
        v = fma(float32(residual_code), residual_scale, v)       only with a residual
        y = clip(rint(v) + zero_point_y, low, high)              half to even; codes of y's dtype
        y = table[y - dtype.min]                                 only with a table

    A float32 y is not rounded: y = clip(v, low, high), where a float32 residual is added as it is.
    multiplier = sx*sw[o]/sy (sy = 1 for a float32 y); bias absorbs the layer's bias and the residual's
    zero point. w_code is the weight's code less its zero point: int8, or int16 within [-255, 255] where that
    leaves int8.
    """

    multiplier: np.ndarray  # float32 [O]
    bias: np.ndarray  # float32 [O]
    low: float
    high: float
    residual_scale: float = 0.0
    table: np.ndarray | None = None  # 256 codes of y's dtype


@dataclass(frozen=True, eq=False, kw_only=True)
class FloatConv(Conv):
    """y = clip(conv(x, weight) + bias[o] + residual, low, high) in float32; order of summation is the kernel's."""

    bias: np.ndarray  # float32 [O]
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True, eq=False, kw_only=True)
class DynamicQuantize(Layer):
    """float32 -> codes on a grid taken at run time from the values, as ONNX's DynamicQuantizeLinear takes it:

        low, high  = min(0, min x), max(0, max x)
        scale      = fma(high, 0.5, low * -0.5) / 255 * 2, or 1 where that is 0     (high - low could overflow)
        zero_point = lowest + clip(rint(-low / scale), 0, 255)            lowest: of the dtype of the codes
        y          = saturate(rint(x / scale) + zero_point)

    per_row: a row of the last axis has a scale and a zero point of its own, else the whole tensor has one.
    extra_outputs: (scale float32, zero_point int32), of the shape of x with 1 for each axis they span.
    A NaN or an infinity makes its scale NaN, its zero point and its codes the lowest, and so all that is computed
    from them NaN.
    """

    extra_outputs: tuple[str, str]
    per_row: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class DynamicDequantize(Layer):
    """(codes, scale, zero_point) of a DynamicQuantize -> float32: y = float32(x - zero_point) * scale."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DynamicConv(Conv):
    """A convolution of codes whose scale is known at run time; float32 out, each line one rounding:

        acc = sum(x_code * w_code) - zero_point * sum(w_code[o])       int32; border = zero point
        s   = scale * weight_scale[o]
        v   = fma(float32(acc), s, bias[o])
        v   = v + residual                                             only with a residual, float32
        y   = clip(v, low, high)                                       NaN stays

    inputs: (codes, scale, zero_point) of a DynamicQuantize, and the residual. Per row they are only for a
    dense layer, where an output has one row of x.
    """

    weight_scale: np.ndarray  # float32 [O]
    bias: np.ndarray  # float32 [O]
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True, eq=False, kw_only=True)
class Table(Layer):
    """y = table[x - dtype.min]: any unary function of one quantized tensor, and requantization."""

    table: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class IntAdd(Layer):
    """y = clip(rint(fma(float32(a - za), scale_a, float32(b - zb) * scale_b)) + zero_point_y, low, high).

    a: y's shape; b: any shape that broadcasts to it. scale_a = sa/sy, scale_b = sb/sy.
    """

    scale_a: float
    scale_b: float
    low: int
    high: int


@dataclass(frozen=True, eq=False, kw_only=True)
class IntMul(Layer):
    """y = clip(rint(float32((a - za) * (b - zb)) * multiplier) + zero_point_y, low, high).

    a: y's shape; b: any shape that broadcasts to it, like [N, 1, 1, C] (a squeeze-excite gate).
    """

    multiplier: float
    low: int
    high: int


@dataclass(frozen=True, eq=False, kw_only=True)
class IntAffine(Layer):
    """Constants added to and multiplied with codes.

        y = clip(rint(fma(float32(x), multiplier, bias)) + zero_point_y, low, high)

    multiplier, bias: float32 arrays that broadcast to x's shape (position embeddings [T, C], a gamma [C]); for
    m * real + b they hold m*sx/sy and b/sy - multiplier*zx.
    """

    multiplier: np.ndarray
    bias: np.ndarray
    low: int
    high: int


@dataclass(frozen=True, eq=False, kw_only=True)
class MatMul(Layer):
    """A product of two activations, `inputs` is (a, b); no transposed copy of either is made:

        y = transpose(transpose(a, perm_a) @ transpose(b, perm_b), perm_y)

    with [..., M, K] @ [..., K, N], leading axes broadcast. a is stored with K as its last axis, b with K or N,
    y with N.
    """

    perm_a: tuple[int, ...] | None = None
    perm_b: tuple[int, ...] | None = None
    perm_y: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class IntMatMul(MatMul):
    """acc = sum over k of (a_code - za) * (b_code - zb) in int32, then

        y = clip(rint(float32(acc) * multiplier) + zero_point_y, low, high)       one rounding; half to even

    multiplier = sa*sb*scale/sy, where scale is a scalar the product is multiplied with (1/sqrt(d) of attention).
    """

    multiplier: float
    low: int
    high: int


@dataclass(frozen=True, eq=False, kw_only=True)
class FloatMatMul(MatMul):
    """y = clip((a @ b) * scale, low, high) in float32; order of summation is the kernel's."""

    scale: float = 1.0
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Layer):
    """Concatenation along `axis`; integer inputs go through `tables[i]` first where it is not None.

    constants: per part the array itself, in y's codes, or None for the next input; () has none.
    """

    tables: tuple[np.ndarray | None, ...] = ()
    axis: int = -1
    constants: tuple[np.ndarray | None, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Layer):
    """y[i, j, ...] = x[begin[0] + i*strides[0], begin[1] + j*strides[1], ...]; any dtype, x and y share qparams."""

    begin: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Pad(Layer):
    """x with `before` and as many more elements as y's shape asks for, all of code `value`, on codes."""

    before: tuple[int, ...]
    value: int


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Layer):
    """Window maximum, on codes or float32 alike (x and y share qparams); the border never wins."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class IntAvgPool(Layer):
    """s = exact integer sum of the window's codes, border = zero point;
    y = clip(rint(fma(float32(s), m, b)) + zero_point_y, low, high).

    m = sx/(sy*count), b = -zx*sx/sy, where count is the window's size (count_include_pad). Where the divisor
    excludes the border, `count_include_pad` is False: s counts valid codes only and m = sx/(sy*valid) per position.
    A global pool is kernel = (H, W).
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    count_include_pad: bool
    low: int
    high: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Resize(Layer):
    """Spatial resize on codes or float32 (x and y share qparams).

    y[oh, ow] = sum_i sum_j wh[oh, i] * ww[ow, j] * x[ih[oh, i], iw[ow, j]], with taps i, j in {0} (nearest) or
    {0, 1} (linear); on codes: t_i = fma(x[.,1], ww1, x[.,0]*ww0) along W, then the same along H, rint, saturate.
    """

    index_h: np.ndarray  # int32 [OH, taps]
    weight_h: np.ndarray  # float32 [OH, taps]
    index_w: np.ndarray
    weight_w: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Copy(Layer):
    """y = transpose(x, perm); any dtype. Also what the schedule inserts between two physical layouts."""

    perm: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class View(Layer):
    """y = reshape(x): the same elements in the same (row-major logical) order."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Opaque(Layer):
    """A fragment no layer above covers, legalized and fused by TVM; it gets the default schedule.

    function:  PrimFunc over dense typed buffers: `arguments`, then `output`, then `extra_outputs`.
    arguments: per input buffer the tensor's name (these are `inputs`) or the constant itself.
    """

    function: PrimFunc
    arguments: tuple[str | np.ndarray, ...]
    extra_outputs: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LayerGraph:
    """Layers in topological order over named tensors; inputs and outputs are in signature order."""

    tensors: Mapping[str, TensorSpec]
    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
