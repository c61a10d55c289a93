"""Operators spelled for NHWC operands, made from the attributes of their NCHW originals."""

from __future__ import annotations

from math import prod

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, shape_of

__all__ = [
    "TO_NCHW",
    "TO_NHWC",
    "adaptive_pool2d",
    "conv2d",
    "layer_norm",
    "moved_axis",
    "moved_shape",
    "pad",
    "permuted",
    "pool2d",
    "resize2d",
    "same_order",
    "softmax",
    "split",
    "strided_slice",
]

TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)


def moved_axis(axis: int) -> int:
    """Where an axis of the NCHW tensor is in the NHWC one."""
    return TO_NHWC.index(axis % 4)


def moved_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The NHWC shape of an NCHW one."""
    return tuple(shape[axis] for axis in TO_NHWC)


def same_order(shape: tuple[int, ...]) -> bool:
    """Whether NCHW `shape` has its elements in the same order as its NHWC form: one pixel or one channel."""
    return len(shape) == 4 and (shape[1] == 1 or prod(shape[2:]) == 1)


def permuted(x: Expr, axes: tuple[int, ...]) -> Expr:
    """permute_dims, or a reshape where no element moves."""
    shape = shape_of(x)
    target = tuple(shape[axis] for axis in axes)
    if same_order(shape if axes == TO_NHWC else target):
        return relax.op.reshape(x, target)
    return relax.op.permute_dims(x, list(axes))


def conv2d(x: Expr, weight: Expr, attrs: relax.op.Conv2DAttrs) -> Expr:
    return relax.op.nn.conv2d(
        x,
        weight,
        strides=_ints(attrs.strides),
        padding=_ints(attrs.padding),
        dilation=_ints(attrs.dilation),
        groups=int(attrs.groups),
        data_layout="NHWC",
        kernel_layout="OHWI",
        out_layout="NHWC",
    )


def pool2d(x: Expr, call: relax.Call) -> Expr:
    attrs = call.attrs
    make = relax.op.nn.max_pool2d if op_name(call) == "nn.max_pool2d" else relax.op.nn.avg_pool2d
    return make(
        x,
        pool_size=_ints(attrs.pool_size),
        strides=_ints(attrs.strides),
        padding=_ints(attrs.padding),
        dilation=_ints(attrs.dilation),
        ceil_mode=bool(attrs.ceil_mode),
        count_include_pad=bool(attrs.count_include_pad),
        layout="NHWC",
        out_layout="NHWC",
    )


def adaptive_pool2d(x: Expr, call: relax.Call) -> Expr:
    size = shape_of(call)[2:]
    return relax.op.nn.adaptive_avg_pool2d(x, output_size=size, layout="NHWC", out_layout="NHWC")


def resize2d(x: Expr, call: relax.Call) -> Expr:
    attrs = call.attrs
    return relax.op.image.resize2d(
        x,
        shape_of(call)[2:],
        roi=[float(edge) for edge in attrs.roi],
        layout="NHWC",
        method=str(attrs.method),
        coordinate_transformation_mode=str(attrs.coordinate_transformation_mode),
        rounding_method=str(attrs.rounding_method),
        cubic_alpha=float(attrs.cubic_alpha),
        cubic_exclude=int(attrs.cubic_exclude),
        extrapolation_value=float(attrs.extrapolation_value),
    )


def pad(x: Expr, call: relax.Call) -> Expr:
    width = _ints(call.attrs.pad_width)
    moved = [width[2 * axis + side] for axis in TO_NHWC for side in (0, 1)]
    mode, value = str(call.attrs.pad_mode), float(call.attrs.pad_value)
    return relax.op.nn.pad(x, moved, pad_mode=mode, pad_value=value)


def softmax(x: Expr, call: relax.Call) -> Expr:
    make = relax.op.nn.softmax if op_name(call) == "nn.softmax" else relax.op.nn.log_softmax
    return make(x, axis=moved_axis(int(call.attrs.axis)))


def layer_norm(x: Expr, weights: list[Expr], call: relax.Call) -> Expr:
    attrs, axes = call.attrs, [moved_axis(int(axis)) for axis in call.attrs.axes]
    return relax.op.nn.layer_norm(
        x,
        *weights,
        axes=axes,
        epsilon=float(attrs.epsilon),
        center=bool(attrs.center),
        scale=bool(attrs.scale),
    )


def split(x: Expr, call: relax.Call) -> Expr:
    parts = call.attrs.indices_or_sections
    sections = int(parts) if not hasattr(parts, "__len__") else [int(index) for index in parts]
    return relax.op.split(x, sections, axis=moved_axis(int(call.attrs.axis)))


def strided_slice(x: Expr, call: relax.Call) -> Expr:
    axes, begin, end = (_values(arg) for arg in call.args[1:4])
    strides = _values(call.args[4]) if len(call.args) > 4 else [1] * len(axes)
    return relax.op.strided_slice(x, [moved_axis(axis) for axis in axes], begin, end, strides)


def _ints(values: object) -> list[int]:
    return [int(value) for value in values]  # type: ignore[attr-defined]


def _values(arg: relax.Tuple) -> list[int]:
    return [int(field.value) for field in arg.fields]
