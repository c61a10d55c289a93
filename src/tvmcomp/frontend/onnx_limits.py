"""What a graph may ask for, checked before ONNX's own inference computes it: sizes, settings, opsets."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from tvmcomp.errors import ModelError
from tvmcomp.frontend.onnx_graph import describe

__all__ = ["check_limits"]

# ONNX's inference holds every element of a computed shape or range as a message of its own.
MAX_COMPUTED = 1 << 24
MAX_ELEMENTS = 1 << 33

_CHOICES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("GridSample", "padding_mode"): ("zeros", "border", "reflection"),
    ("Pad", "mode"): ("constant", "reflect", "edge", "wrap"),
    ("Resize", "mode"): ("nearest", "linear", "cubic"),
    ("Upsample", "mode"): ("nearest", "linear"),
}


def check_limits(model: onnx.ModelProto) -> None:
    """Raise ModelError for a node that stored numbers alone make too large, or a setting that is none."""
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not opsets:
        raise ModelError(
            f"graph {model.graph.name} declares no opset of the default domain; "
            "save the model with opset_imports"
        )
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    for node in model.graph.node:
        _check_exists(node, max(opsets))
        _check_settings(node)
        _check_scale(node, tensors)
        values = [
            numpy_helper.to_array(tensors[name])
            if name in tensors and prod(tensors[name].dims) <= 64
            else None
            for name in node.input
        ]
        count = _count(node, values)
        limit = MAX_COMPUTED if node.op_type == "Range" else MAX_ELEMENTS
        if count is not None and count > limit:
            raise ModelError(
                f"{describe(node)} makes {count} elements, it may make at most {limit}; "
                "correct the numbers it reads"
            )


def _check_exists(node: NodeProto, opset: int) -> None:
    if node.domain not in ("", "ai.onnx"):
        return
    try:
        onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        raise ModelError(
            f"{describe(node)} does not exist in opset {opset}, which the model declares; "
            "export it with the opset it is written for"
        ) from None


def _check_scale(node: NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> None:
    """A stored scale is a positive normal float; that of stored codes may be zero, which means zeros."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 2:
        return
    tensor = tensors.get(node.input[1])
    scale = None if tensor is None else numpy_helper.to_array(tensor)
    if scale is None or scale.dtype.kind != "f":
        return
    good = np.isfinite(scale) & (scale >= np.finfo(scale.dtype).tiny)
    if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
        good |= scale == 0
    if not good.all():
        raise ModelError(
            f"{describe(node)} has the scale {scale[~good].flat[0]:g} in {node.input[1]}, which is not "
            "finite and positive; correct it in the quantized model"
        )


def _check_settings(node: NodeProto) -> None:
    for attribute in node.attribute:
        choices = _CHOICES.get((node.op_type, attribute.name))
        if choices is None or attribute.type != onnx.AttributeProto.STRING:
            continue
        got = attribute.s.decode(errors="replace")
        if got not in choices:
            raise ModelError(
                f"{describe(node)} has {attribute.name} {got!r}; use {', '.join(choices)}"
            )


def _count(node: NodeProto, values: list[np.ndarray | None]) -> int | None:
    """Elements a node makes, as far as stored operands alone say; None for other nodes."""
    if node.op_type == "Range" and len(values) == 3:
        if any(value is None or value.size != 1 for value in values):
            return None
        start, limit, delta = (value.reshape(()).item() for value in values if value is not None)
        if delta == 0 or not np.isfinite([float(start), float(limit), float(delta)]).all():
            raise ModelError(
                f"{describe(node)} goes from {start} to {limit} by {delta}; use finite numbers and a step"
            )
        return max(0, ceil((limit - start) / delta))
    position = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}.get(node.op_type)
    if position is None or len(values) <= position:
        return None
    sizes = values[position]
    return None if sizes is None else prod(abs(int(size)) for size in sizes.reshape(-1))
