"""Quantization of every opset, in the forms of `frontend/qdq.py` and `frontend/dynamic_form.py`."""

from __future__ import annotations

import onnx
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import shape_of
from tvmcomp.frontend.dynamic_form import DynamicForm, dynamic_quantize
from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode
from tvmcomp.frontend.qdq import dequantize, quantize

__all__ = ["QUANTIZATION"]

_CODES = ("int8", "uint8", "int16", "uint16")


def _quantize(node: OnnxNode) -> Expr:
    """To 8 or 16 bits, per tensor or per axis."""
    _refuse_blocks(node)
    zero_point = node.get(2)
    if zero_point is None:
        named = node.attrs.get("output_dtype", 0) or onnx.TensorProto.UINT8
        dtype = onnx.TensorProto.DataType.Name(named).lower()
    else:
        dtype = str(zero_point.ty.dtype)
    if dtype not in _CODES:
        raise ValueError(
            f"codes of type {dtype} are not supported; quantize to {', '.join(_CODES)}"
        )
    return quantize(node.x, node[1], zero_point, int(node.attrs.get("axis", 1)), dtype)


def _dequantize(node: OnnxNode) -> Expr:
    """From 8, 16 or 32 bits, per tensor or per axis."""
    _refuse_blocks(node)
    made = node.dynamic.get(node.x)
    if made is not None and made[1].same_as(node.get(1)) and made[2].same_as(node.get(2)):
        return dynamic_quantize(made[0], DynamicForm())
    if node.dtype not in (*_CODES, "int32"):
        raise ValueError(
            f"codes of type {node.dtype} are not supported; use {', '.join(_CODES)} or int32"
        )
    return dequantize(node.x, node[1], node.get(2), int(node.attrs.get("axis", 1)))


def _dynamic_quantize(node: OnnxNode) -> Expr:
    """(codes, scale, zero point) of the whole tensor; what dequantizes them is the form made for that."""
    zero = relax.const(0.0, "float32")
    high = node.emit(relax.op.maximum(node.emit(relax.op.max(node.x)), zero))
    low = node.emit(relax.op.minimum(node.emit(relax.op.min(node.x)), zero))
    span = node.emit(relax.op.subtract(high, low))
    scale = node.emit(relax.op.divide(span, relax.const(255.0, "float32")))
    # All zeros have no span; any scale gives zeros back.
    flat = node.emit(relax.op.equal(scale, zero))
    scale = node.emit(relax.op.where(flat, relax.const(1.0, "float32"), scale))
    steps = node.emit(relax.op.round(node.emit(relax.op.divide(low, scale))))
    point = node.emit(relax.op.clip(node.emit(relax.op.negative(steps)), 0.0, 255.0))
    zero_point = node.emit(relax.op.astype(point, "uint8"))
    axis = max(len(node.shape) - 1, 0)
    codes = node.emit(relax.op.quantize(node.x, scale, zero_point, axis, "uint8"))
    node.dynamic[codes] = (node.x, scale, zero_point)
    return relax.Tuple([codes, scale, zero_point])


def _conv_integer(node: OnnxNode) -> Expr:
    """int32 sums of codes less their zero points; the border is zero."""
    if len(node.shape) != 4:
        raise NotImplementedError(
            f"ConvInteger on {len(node.shape)} axes; reshape it to 2-D images"
        )
    weight = _steps(node, 1, node.get(3), (-1, 1, 1, 1))
    pads = node.attrs.get("pads") or [0, 0, 0, 0]
    return relax.op.nn.conv2d(
        _steps(node, 0, node.get(2), ()),
        weight,
        strides=node.attrs.get("strides") or [1, 1],
        padding=pads,
        dilation=node.attrs.get("dilations") or [1, 1],
        groups=int(node.attrs.get("group", 1)),
        out_dtype="int32",
    )


def _steps(node: OnnxNode, index: int, zero_point: Expr | None, per_axis: tuple[int, ...]) -> Expr:
    """An operand as int32 less its zero point, which is one number or one per index of the first axis."""
    codes = node.emit(relax.op.astype(node[index], "int32"))
    if zero_point is None:
        return codes
    point = node.emit(relax.op.astype(zero_point, "int32"))
    shape = () if all(size == 1 for size in shape_of(point)) else per_axis
    return node.emit(relax.op.subtract(codes, node.emit(relax.op.reshape(point, shape))))


def _refuse_blocks(node: OnnxNode) -> None:
    size = int(node.attrs.get("block_size", 0))
    if size:
        raise ValueError(
            f"scales per block of {size} elements are not supported; "
            "quantize per tensor or per channel"
        )


QUANTIZATION: dict[str, Converter] = {
    "ConvInteger": _conv_integer,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "QuantizeLinear": _quantize,
}
