"""Values without elements: whatever gives them, they are known before the network runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from tvmcomp.frontend.onnx_graph import without_weights

__all__ = ["fold_empty"]


def fold_empty(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Replace empty values by initializers; True if anything changed.

    op(x) -> empty                 ->  an initializer
    split(x) -> a, empty, b        ->  split(x) -> a, b
    concat(x, empty)               ->  concat(x)
    """
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer}
    empty = {name for node in graph.node for name in node.output if 0 in shapes.get(name, ())}
    parts = empty | {t.name for t in graph.initializer if 0 in t.dims}
    parts |= {value.name for value in graph.input if 0 in shapes.get(value.name, ())}
    changed = _shorten_concats(graph, parts)
    if not empty:
        return changed
    types = _types(model)
    kept: list[NodeProto] = []
    for node in graph.node:
        gone = [name for name in node.output if name in empty]
        rest = [name for name in node.output if name and name not in empty]
        if gone and rest and node.op_type != "Split":
            kept.append(node)
            continue
        for name in gone:
            if name not in known:
                array = np.zeros(shapes[name], helper.tensor_dtype_to_np_dtype(types[name]))
                graph.initializer.append(numpy_helper.from_array(array, name))
        if rest:
            kept.append(_shorter_split(graph, node, rest, shapes) if gone else node)
        changed |= bool(gone)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)
    return changed


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _shorten_concats(graph: onnx.GraphProto, empty: set[str]) -> bool:
    changed = False
    for node in graph.node:
        full = [name for name in node.input if name not in empty]
        if node.op_type == "Concat" and full and len(full) < len(node.input):
            del node.input[:]
            node.input.extend(full)
            changed = True
    return changed


def _shorter_split(
    graph: onnx.GraphProto, node: NodeProto, rest: list[str], shapes: Mapping[str, tuple[int, ...]]
) -> NodeProto:
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 0)
    if len(rest) == 1:
        return helper.make_node("Identity", [node.input[0]], rest, name=node.name)
    sizes = [shapes[name][axis] for name in rest]
    if len(node.input) < 2:
        return helper.make_node("Split", node.input, rest, name=node.name, axis=axis, split=sizes)
    name = f"{rest[0]}.sizes"
    graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
    return helper.make_node("Split", [node.input[0], name], rest, name=node.name, axis=axis)
