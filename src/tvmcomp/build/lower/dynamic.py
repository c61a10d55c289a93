"""Activations quantized at run time, and the dense layers and convolutions that multiply their codes."""

from __future__ import annotations

from collections.abc import Collection

from tvmcomp.build.lower.claim import Claim
from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.frontend.dynamic_form import DynamicForm, match_dynamic
from tvmcomp.graph.layers import DynamicDequantize, DynamicQuantize, TensorSpec

__all__ = ["dynamic_source", "match_dynamic_quantize"]


def dynamic_source(flow: Flow, node: Node) -> tuple[tuple[str, str, str], DynamicForm] | None:
    """((codes, scale, zero point), form) if the first operand of `node` is quantized at run time, else None."""
    source = flow.node(node.args[0])
    found = match_dynamic(source.value) if source is not None else None
    return None if source is None or found is None else (_names(source), found[1])


def match_dynamic_quantize(flow: Flow, node: Node, integer: Collection[str]) -> Claim | None:
    """dynamic_quantize(x)  ->  DynamicQuantize, and DynamicDequantize for readers other than the layers `integer`."""
    found = match_dynamic(node.value)
    if found is None:
        return None
    x, form = flow.resolve(found[0]), found[1]
    codes, scale, zero_point = _names(node)
    shape = (*node.shape[:-1], 1) if form.per_token else (1,) * len(node.shape)
    quantize = DynamicQuantize(
        name=codes,
        inputs=(x.name,),
        output=codes,
        extra_outputs=(scale, zero_point),
        per_row=form.per_token,
    )
    specs = (
        TensorSpec(codes, node.shape, form.dtype),
        TensorSpec(scale, shape, "float32"),
        TensorSpec(zero_point, shape, "int32"),
    )
    exported = (codes, scale, zero_point)
    readers = {user.name for user in flow.users(node.name)}
    if node.name not in flow.outputs and readers <= set(integer):
        return Claim(node.name, (quantize,), specs, exported=exported)
    real = DynamicDequantize(name=node.name, inputs=exported, output=node.name)
    real_spec = TensorSpec(node.name, node.shape, "float32")
    return Claim(node.name, (quantize, real), (*specs, real_spec), exported=(*exported, node.name))


def _names(node: Node) -> tuple[str, str, str]:
    return f"{node.name}.codes", f"{node.name}.scale", f"{node.name}.zero_point"
