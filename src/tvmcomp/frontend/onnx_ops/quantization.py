"""QuantizeLinear and DequantizeLinear of every opset, in the one form of `frontend/qdq.py`."""

from __future__ import annotations

import onnx
from tvm.ir import Expr

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
    if node.dtype not in (*_CODES, "int32"):
        raise ValueError(
            f"codes of type {node.dtype} are not supported; use {', '.join(_CODES)} or int32"
        )
    return dequantize(node.x, node[1], node.get(2), int(node.attrs.get("axis", 1)))


def _refuse_blocks(node: OnnxNode) -> None:
    size = int(node.attrs.get("block_size", 0))
    if size:
        raise ValueError(
            f"scales per block of {size} elements are not supported; "
            "quantize per tensor or per channel"
        )


QUANTIZATION: dict[str, Converter] = {
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
}
