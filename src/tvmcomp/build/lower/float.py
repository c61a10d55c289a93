"""Layers outside of Q/DQ pairs that have a kernel of ours: moves, views, max pooling of floats or of codes."""

from __future__ import annotations

from tvmcomp.build.lower.claim import Claim
from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.build.lower.integer import same_scale_layer
from tvmcomp.build.lower.rowwise import embedding_layer
from tvmcomp.graph.layers import TensorSpec

__all__ = ["match_float"]

_OPERATORS = ("relax.nn.max_pool2d", "relax.permute_dims", "relax.reshape", "relax.flatten")


def match_float(flow: Flow, node: Node) -> Claim | None:
    """max_pool2d | permute_dims | reshape of a float32 tensor or of codes  ->  MaxPool | Copy | View;
    take of a compressed table  ->  Embedding.
    """
    if node.op == "relax.take":
        found = embedding_layer(flow, node, None, node.name)
        spec = TensorSpec(node.name, node.shape, "float32")
        return None if found is None else Claim(node.name, (found,), (spec,))
    qparams = flow.codes(flow.resolve(node.value.args[0])) if node.op in _OPERATORS else None
    if node.op not in _OPERATORS or (node.dtype != "float32" and qparams is None):
        return None
    source = flow.resolve(node.args[0])
    if flow.param(source) is not None:
        return None
    layer = same_scale_layer(flow, node, source.name, node.name)
    if layer is None:
        return None
    return Claim(node.name, (layer,), (TensorSpec(node.name, node.shape, node.dtype, qparams),))
