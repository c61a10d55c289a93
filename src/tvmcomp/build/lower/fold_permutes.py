"""A permutation next to a product of two activations is how the product reads or writes, not a copy.

q' = copy(q, perm); y = matmul(q', k')           ->  y = matmul(q, k', perm_a)
y = matmul(p, v); z = copy(y, perm)              ->  z = matmul(p, v, perm_y)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tvmcomp.graph.layers import Copy, Layer, LayerGraph, MatMul

__all__ = ["fold_permutes"]

Perm = tuple[int, ...]


def fold_permutes(graph: LayerGraph) -> LayerGraph:
    """The graph with every permutation a product can do itself folded into it; the rest stay."""
    graph = _into_operands(graph)
    return _into_results(graph)


def _into_operands(graph: LayerGraph) -> LayerGraph:
    copies = {layer.output: layer for layer in graph.layers if isinstance(layer, Copy)}
    layers: list[Layer] = []
    for layer in graph.layers:
        if isinstance(layer, MatMul):
            for side, field in enumerate(("perm_a", "perm_b")):
                copy = copies.get(layer.inputs[side])
                if copy is not None and copy.perm is not None:
                    layer = _read_through(layer, side, field, copy.perm, copy.inputs[0])
        layers.append(layer)
    used = {*graph.outputs, *(name for layer in layers for name in layer.inputs)}
    kept = tuple(x for x in layers if not isinstance(x, Copy) or x.output in used)
    return _pruned(replace(graph, layers=kept))


def _read_through(layer: MatMul, side: int, field: str, perm: Perm, source: str) -> MatMul:
    own = getattr(layer, field) or tuple(range(len(perm)))
    total = tuple(perm[axis] for axis in own)
    last = len(perm) - 1
    # Of a, k must be contiguous in memory, of b either axis of the matrix.
    if last not in (total[-1:] if side == 0 else total[-2:]):
        return layer
    inputs = tuple(source if i == side else name for i, name in enumerate(layer.inputs))
    return replace(layer, inputs=inputs, **{field: total})  # type: ignore[arg-type]


def _into_results(graph: LayerGraph) -> LayerGraph:
    uses = Counter(name for layer in graph.layers for name in layer.inputs)
    uses.update(graph.outputs)
    products = {x.output: x for x in graph.layers if isinstance(x, MatMul) and uses[x.output] == 1}
    written: dict[str, MatMul] = {}
    dropped: set[str] = set()
    for layer in graph.layers:
        product = products.get(layer.inputs[0]) if isinstance(layer, Copy) else None
        if not isinstance(layer, Copy) or layer.perm is None or product is None:
            continue
        own = product.perm_y or tuple(range(len(layer.perm)))
        total = tuple(own[axis] for axis in layer.perm)
        if total[-1] == len(total) - 1:
            written[product.name] = replace(product, output=layer.output, perm_y=total)
            dropped.add(layer.name)
    layers = tuple(written.get(x.name, x) for x in graph.layers if x.name not in dropped)
    return _pruned(replace(graph, layers=layers))


def _pruned(graph: LayerGraph) -> LayerGraph:
    """Without the tensors no layer touches any more."""
    named = {*graph.inputs, *graph.outputs}
    for layer in graph.layers:
        named.update((*layer.inputs, layer.output, *getattr(layer, "extra_outputs", ())))
    tensors = {name: spec for name, spec in graph.tensors.items() if name in named}
    return replace(graph, tensors=tensors)
