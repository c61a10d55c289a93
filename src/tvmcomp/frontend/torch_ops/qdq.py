"""Converters for the quantize and dequantize operators PyTorch's PT2E flow leaves in an exported program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.dynamic_form import DynamicForm, dynamic_quantize
from tvmcomp.frontend.qdq import dequantize, quantize

__all__ = ["QDQ", "register_operators"]

Converter = Callable[[fx.Node, Any], Expr]

_DTYPES = {torch.int8: "int8", torch.uint8: "uint8", torch.int16: "int16", torch.int32: "int32"}


def register_operators() -> None:
    """Make the operators known to PyTorch, which a saved program that holds them needs to be read."""
    import torch.ao.quantization.fx._decomposed  # noqa: F401


def _arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments by the names of the operator's schema."""
    names = [argument.name for argument in node.target._schema.arguments]
    return dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def _dtype(arguments: dict[str, Any]) -> str:
    dtype = _DTYPES.get(arguments["dtype"])
    if dtype is None:
        raise NotImplementedError(
            f"codes of type {arguments['dtype']} are not supported; use int8 or uint8"
        )
    return dtype


def _number(importer: Any, value: Any, dtype: str) -> Expr:
    """A scale or a zero point: a number of the graph, or a tensor cast to `dtype`."""
    if not isinstance(value, fx.Node):
        return relax.const(np.array(value, dtype), dtype)
    tensor = importer.env[value]
    if str(tensor.ty.dtype) == dtype:
        return tensor
    return importer.block_builder.emit(relax.op.astype(tensor, dtype))


def _grid(node: fx.Node, importer: Any, dtype: str) -> tuple[Expr, Expr | None, int]:
    """Scale, zero point and axis."""
    given = _arguments(node)
    per_channel = "scales" in given
    scale = _number(importer, given["scales" if per_channel else "scale"], "float32")
    points = given["zero_points" if per_channel else "zero_point"]
    zero_point = None if points is None else _number(importer, points, dtype)
    return scale, zero_point, int(given["axis"]) if per_channel else -1


def _quantize(node: fx.Node, importer: Any) -> Expr:
    """A range of codes narrower than their dtype's is a clip in front."""
    given = _arguments(node)
    dtype = _dtype(given)
    if dtype == "int32":
        raise NotImplementedError("a tensor is quantized to int32; fold its quantization first")
    x = importer.env[given["input"]]
    scale, zero_point, axis = _grid(node, importer, dtype)
    info, low, high = np.iinfo(dtype), given["quant_min"], given["quant_max"]
    if (low, high) != (info.min, info.max) and not isinstance(given.get("scale"), fx.Node):
        if "scales" in given:
            return importer.block_builder.emit(quantize(x, scale, zero_point, axis, dtype))
        step, zero = np.float32(given["scale"]), given["zero_point"]
        bounds = (float((bound - zero) * step) for bound in (low, high))
        x = importer.block_builder.emit(relax.op.clip(x, *bounds))
    return importer.block_builder.emit(quantize(x, scale, zero_point, axis, dtype))


def _dequantize(node: fx.Node, importer: Any) -> Expr:
    given = _arguments(node)
    if given.get("out_dtype") not in (None, torch.float32):
        raise NotImplementedError(f"dequantizing to {given['out_dtype']} is not supported")
    dynamic = _dynamic(node, importer)
    if dynamic is not None:
        return dynamic
    codes = importer.env[given["input"]]
    scale, zero_point, axis = _grid(node, importer, str(codes.ty.dtype))
    return importer.block_builder.emit(dequantize(codes, scale, zero_point, axis))


def _dynamic(node: fx.Node, importer: Any) -> Expr | None:
    """dequantize(quantize(x, *choose_qparams(x)))  ->  dynamic_quantize(x)"""
    quantizer = node.args[0]
    if not isinstance(quantizer, fx.Node) or _name(quantizer) != "quantize_per_tensor.tensor":
        return None
    x, scale = quantizer.args[:2]
    chosen = scale.args[0] if isinstance(scale, fx.Node) and scale.args else None
    if not isinstance(chosen, fx.Node) or _name(chosen) != "choose_qparams.tensor":
        return None
    dtype = _dtype(_arguments(quantizer))
    info, given = np.iinfo(dtype), _arguments(quantizer)
    whole = (given["quant_min"], given["quant_max"]) == (info.min, info.max)
    if chosen.args[0] is not x or not whole or dtype not in ("int8", "uint8"):
        return None
    form = DynamicForm("int8" if dtype == "int8" else "uint8")
    return importer.block_builder.emit(dynamic_quantize(importer.env[x], form))


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", ""))


def _choose(node: fx.Node, importer: Any) -> Expr:
    """choose_qparams: (high - low) / (quant_max - quant_min), and the code of zero."""
    given = _arguments(node)
    x, low, high = importer.env[given["input"]], given["quant_min"], given["quant_max"]
    emit = importer.block_builder.emit
    zero = relax.const(0.0, "float32")
    least = emit(relax.op.minimum(emit(relax.op.min(x)), zero))
    most = emit(relax.op.maximum(emit(relax.op.max(x)), zero))
    span = emit(relax.op.subtract(most, least))
    scale = emit(relax.op.divide(span, relax.const(float(high - low), "float32")))
    scale = emit(relax.op.maximum(scale, relax.const(float(given["eps"]), "float32")))
    steps = emit(relax.op.round(emit(relax.op.divide(least, scale))))
    point = emit(relax.op.subtract(relax.const(float(low), "float32"), steps))
    point = emit(relax.op.clip(point, float(low), float(high)))
    return importer.block_builder.emit(relax.Tuple([scale, emit(relax.op.astype(point, "int64"))]))


QDQ: dict[str, Converter] = {
    "choose_qparams.tensor": _choose,
    "dequantize_per_channel.default": _dequantize,
    "dequantize_per_tensor.default": _dequantize,
    "dequantize_per_tensor.tensor": _dequantize,
    "quantize_per_channel.default": _quantize,
    "quantize_per_tensor.default": _quantize,
    "quantize_per_tensor.tensor": _quantize,
}
