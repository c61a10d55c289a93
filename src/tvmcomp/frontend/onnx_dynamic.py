"""Finds sums over codes quantized at run time that a graph scales back to float32 by itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx
from onnx import NodeProto, TensorProto

__all__ = ["DynamicSum", "dynamic_sums"]


@dataclass(frozen=True)
class DynamicSum:
    """codes: (codes, scale, zero point) of the first operand; result: what the graph calls the float32 product.

    dropped: outputs of the nodes that scale it.
    """

    codes: tuple[str, str, str]
    weight_scale: str
    result: str
    dropped: tuple[str, ...]


def dynamic_sums(graph: onnx.GraphProto) -> dict[str, DynamicSum]:
    """Mul(Cast(MatMulInteger(q, w, z, wz)), s * ws), (q, s, z) = DynamicQuantizeLinear(x); likewise ConvInteger.

    By the integer node's output. A sum that anything else reads is not among them.
    """
    makers = {name: node for node in graph.node for name in node.output}
    reads = Counter(name for node in graph.node for name in node.input)
    reads.update(value.name for value in graph.output)
    users = {name: node for node in graph.node for name in node.input}
    found = {}
    for node in graph.node:
        if node.op_type in ("MatMulInteger", "ConvInteger"):
            match = _match(node, makers, reads, users)
            if match is not None:
                found[node.output[0]] = match
    return found


def _match(
    node: NodeProto,
    makers: dict[str, NodeProto],
    reads: Counter[str],
    users: dict[str, NodeProto],
) -> DynamicSum | None:
    source = makers.get(node.input[0])
    if source is None or source.op_type != "DynamicQuantizeLinear":
        return None
    codes, scale, zero_point = source.output
    if node.input[0] != codes or len(node.input) < 3 or node.input[2] != zero_point:
        return None
    total = node.output[0]
    cast = users.get(total)
    if cast is None or cast.op_type != "Cast" or reads[total] != 1:
        return None
    if [a.i for a in cast.attribute if a.name == "to"] != [TensorProto.FLOAT]:
        return None
    real = cast.output[0]
    scaled = users.get(real)
    if scaled is None or scaled.op_type != "Mul" or reads[real] != 1:
        return None
    factor = makers.get(next((name for name in scaled.input if name != real), ""))
    if factor is None or factor.op_type != "Mul" or scale not in factor.input:
        return None
    weight_scale = next((name for name in factor.input if name != scale), "")
    if not weight_scale or weight_scale in makers:
        return None
    return DynamicSum(
        (codes, scale, zero_point), weight_scale, scaled.output[0], (real, scaled.output[0])
    )
