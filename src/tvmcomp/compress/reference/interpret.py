"""Run a whole layer graph in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmcomp.compress.reference.layers import compute_outputs
from tvmcomp.errors import DataError
from tvmcomp.graph.layers import LayerGraph, Opaque, TensorSpec

__all__ = ["OpaqueRunner", "run"]

# opaque(layer, arrays of layer.inputs) -> arrays of (layer.output, *layer.extra_outputs)
OpaqueRunner = Callable[[Opaque, Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]


def run(
    graph: LayerGraph,
    inputs: Mapping[str, NDArray[Any]],
    opaque: OpaqueRunner | None = None,
    *,
    keep: bool = False,
) -> dict[str, NDArray[Any]]:
    """The graph's outputs by name, in order; with `keep`, every tensor of the graph."""
    values = {name: _checked(inputs, graph.tensors[name]) for name in graph.inputs}
    last_use = {name: i for i, layer in enumerate(graph.layers) for name in layer.inputs}
    for i, layer in enumerate(graph.layers):
        arrays = [values[name] for name in layer.inputs]
        names = (layer.output, *getattr(layer, "extra_outputs", ()))
        if isinstance(layer, Opaque) and opaque is not None:
            values.update(zip(names, opaque(layer, arrays), strict=True))
        else:
            results = compute_outputs(layer, graph.tensors, arrays)
            values.update(zip(names, results, strict=True))
        if not keep:
            for name in layer.inputs:
                if last_use[name] == i and name not in graph.outputs:
                    values.pop(name, None)
    return values if keep else {name: values[name] for name in graph.outputs}


def _checked(inputs: Mapping[str, NDArray[Any]], spec: TensorSpec) -> NDArray[Any]:
    if spec.name not in inputs:
        raise DataError(f"input {spec.name!r} is missing; got {sorted(inputs)}")
    array = np.asarray(inputs[spec.name])
    if array.shape != spec.shape or array.dtype != np.dtype(spec.dtype):
        raise DataError(
            f"input {spec.name!r} is {array.dtype}{list(array.shape)}; "
            f"pass {spec.dtype}{list(spec.shape)}"
        )
    return array
