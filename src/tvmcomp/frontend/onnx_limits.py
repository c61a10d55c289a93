"""What a graph may ask for, checked before ONNX's own inference computes it: sizes, settings, opsets."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from tvmcomp.errors import ModelError
from tvmcomp.frontend.onnx_graph import MAX_COMPUTED, describe

__all__ = ["check_limits"]

MAX_ELEMENTS = 1 << 33
# The furthest an 8-bit code lies from its zero point.
_CODES = 255

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
        _check_scale_shapes(node, tensors, max(opsets))
        values = [
            numpy_helper.to_array(tensors[name])
            if name in tensors and prod(tensors[name].dims) <= 64
            else None
            for name in node.input
        ]
        made = _made(node, values)
        count = prod(made or ())
        # A vector may be a shape, and ONNX's inference takes it for one.
        limit = MAX_COMPUTED if made is not None and len(made) == 1 else MAX_ELEMENTS
        if count > limit:
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
    """A stored scale is a positive normal float, times 8-bit codes finite; that of stored codes may be zero,
    which means zeros."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 2:
        return
    tensor = tensors.get(node.input[1])
    scale = None if tensor is None else numpy_helper.to_array(tensor)
    if scale is None or scale.dtype.kind != "f":
        return
    limits = np.finfo(scale.dtype)
    good = (scale >= limits.tiny) & (scale <= limits.max / _CODES)
    if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
        good |= scale == 0
    if not good.all():
        raise ModelError(
            f"{describe(node)} has the scale {scale[~good].flat[0]:g} in {node.input[1]}, which is not "
            "positive, or makes values that are not finite; correct it in the quantized model"
        )


def _check_scale_shapes(
    node: NodeProto, tensors: Mapping[str, onnx.TensorProto], opset: int
) -> None:
    """Scale and zero point are one number each, or have one shape; before opset 21 at most a vector."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return
    shapes = [tuple(tensors[name].dims) for name in node.input[1:3] if name in tensors]
    names = " and ".join(name for name in node.input[1:3] if name in tensors)
    ranks = {len(shape) for shape in shapes}
    vectors = opset >= 21 or max(ranks, default=0) <= 1
    single = max(ranks, default=0) <= 1 and all(prod(shape) == 1 for shape in shapes)
    if not vectors or not (single or len(set(shapes)) <= 1):
        got = " and ".join(str(list(shape)) for shape in shapes)
        raise ModelError(
            f"{describe(node)} has scale and zero point of shapes {got} in {names}; "
            "store one number each, or one of each per index of the axis"
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


def _made(node: NodeProto, values: list[np.ndarray | None]) -> tuple[int, ...] | None:
    """Lengths of what a node makes, as far as stored operands alone say; None for other nodes."""
    if node.op_type == "Range" and len(values) == 3:
        if any(value is None or value.size != 1 for value in values):
            return None
        start, limit, delta = (value.reshape(()).item() for value in values if value is not None)
        if delta == 0 or not np.isfinite([float(start), float(limit), float(delta)]).all():
            raise ModelError(
                f"{describe(node)} goes from {start} to {limit} by {delta}; use finite numbers and a step"
            )
        return (max(0, ceil((limit - start) / delta)),)
    position = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}.get(node.op_type)
    if position is None or len(values) <= position:
        return None
    sizes = values[position]
    return None if sizes is None else tuple(abs(int(size)) for size in sizes.reshape(-1))
