"""Functions a model defines itself are replaced by their nodes, within limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
import onnx.inliner
from onnx import NodeProto

from tvmcomp.errors import ModelError
from tvmcomp.frontend.signature import first_line

__all__ = ["inline_functions"]

# A few functions that call one another twice make a graph without end.
MAX_NODES = 1_000_000


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions of its own; a ModelError if they are recursive or make too many nodes."""
    if not model.functions:
        return model
    bodies: dict[tuple[str, str], list[NodeProto]] = {}
    for function in model.functions:
        key = (function.domain, function.name)
        if key in bodies:
            raise ModelError(f"function {function.name} is defined twice; remove one of them")
        bodies[key] = list(_nodes(function.node))
    sizes: dict[tuple[str, str], int] = {}
    total = _size(list(_nodes(model.graph.node)), bodies, sizes, ())
    if total > MAX_NODES:
        raise ModelError(
            f"graph {model.graph.name} has {total} nodes with its functions inlined, "
            f"it may have at most {MAX_NODES}; simplify it"
        )
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:
        names = ", ".join(function.name for function in model.functions[:3])
        raise ModelError(
            f"functions {names} cannot be inlined: {first_line(error)}; "
            "export the model without functions"
        ) from error


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _nodes(graph.node)


def _size(
    nodes: list[NodeProto],
    bodies: dict[tuple[str, str], list[NodeProto]],
    sizes: dict[tuple[str, str], int],
    inside: tuple[tuple[str, str], ...],
) -> int:
    total = 0
    for node in nodes:
        key = (node.domain, node.op_type)
        if key in inside:
            names = " -> ".join(name for _, name in (*inside[inside.index(key) :], key))
            raise ModelError(f"function {key[1]} calls itself: {names}; write it without recursion")
        if key not in bodies:
            total += 1
            continue
        if key not in sizes:
            sizes[key] = _size(bodies[key], bodies, sizes, (*inside, key))
        total += sizes[key]
    return total
