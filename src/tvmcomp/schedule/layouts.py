"""Physical layouts: which tensor gets a halo and a channel pitch, and where a copy must stand between two.

conv(x)  with pads, x from an opaque function   ->   x' = copy(x) with a halo;  conv(x')
opaque(x), x with a halo                        ->   x' = copy(x), dense;       opaque(x')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tvmcomp.graph.layers import (
    Conv,
    Copy,
    DynamicQuantize,
    Embedding,
    Layer,
    LayerGraph,
    Opaque,
    Quantize,
    TensorSpec,
    View,
)
from tvmcomp.kernels.layout import Layout

__all__ = ["ScheduledGraph", "assign_layouts"]

# Vector stores cover this many channels, so a padded pitch lets every kernel store whole vectors.
_VECTOR = 16
# Rows of a power-of-two pitch map to few cache sets; one more line spreads them.
_ALIASING_BYTES = 256


@dataclass(frozen=True, eq=False)
class ScheduledGraph:
    """A layer graph whose every tensor has a layout all its readers and its writer accept."""

    graph: LayerGraph
    layouts: Mapping[str, Layout]


def assign_layouts(graph: LayerGraph) -> ScheduledGraph:
    """Choose layouts from who writes and who reads each tensor, and insert the copies that remain."""
    graph = _separate_outputs(_read_inputs_once(graph))
    for halo in (True, False):
        graph = _insert_copies(graph, to_halo=halo)
    halos, rigid = _halos(graph), _rigid(graph)
    layouts = {}
    for name, spec in graph.tensors.items():
        itemsize = np.dtype(spec.dtype).itemsize
        dense = Layout.dense(spec.shape, itemsize)
        if name in rigid:
            layouts[name] = dense
        else:
            pitch = _pitch(dense.channels, itemsize)
            layouts[name] = replace(dense, halo=halos.get(name, 0), pitch=pitch)
    return ScheduledGraph(graph, layouts)


def _pitch(channels: int, itemsize: int) -> int:
    if channels < _VECTOR:
        return channels
    pitch = -(-channels // _VECTOR) * _VECTOR
    size = pitch * itemsize
    return (
        pitch + 64 // itemsize if size >= _ALIASING_BYTES and size % _ALIASING_BYTES == 0 else pitch
    )


def _pads(layer: Layer) -> int:
    return max(layer.pads) if isinstance(layer, Conv) else 0


def _halos(graph: LayerGraph) -> dict[str, int]:
    halos: dict[str, int] = {}
    for layer in graph.layers:
        if (pads := _pads(layer)) > 0:
            halos[layer.inputs[0]] = max(pads, halos.get(layer.inputs[0], 0))
    return halos


def _rigid(graph: LayerGraph) -> set[str]:
    """Tensors that must be dense: graph inputs and outputs and what opaque functions and views touch."""
    rigid = {*graph.inputs, *graph.outputs}
    for layer in graph.layers:
        if isinstance(layer, Opaque):
            rigid.update((*layer.inputs, layer.output, *layer.extra_outputs))
        elif isinstance(layer, View):
            rigid.update((*layer.inputs, layer.output))
    return rigid


def _read_inputs_once(graph: LayerGraph) -> LayerGraph:
    """Graph inputs live in the caller's memory, which only a few kernels and TVM's read exactly."""
    exact = (Quantize, DynamicQuantize, Copy, Embedding, Opaque)
    return _redirect(
        graph,
        lambda layer, name: name in graph.inputs and not isinstance(layer, exact),
        suffix="local",
    )


def _separate_outputs(graph: LayerGraph) -> LayerGraph:
    """An output that is also read inside, is an input, a view or repeated gets a copy of its own to write."""
    read = {name for layer in graph.layers for name in layer.inputs}
    views = {layer.output for layer in graph.layers if isinstance(layer, View)}
    tensors, layers, outputs = dict(graph.tensors), list(graph.layers), []
    for name in graph.outputs:
        if name in read or name in views or name in graph.inputs or name in outputs:
            copied = _unused(f"{name}.out", tensors)
            tensors[copied] = replace(tensors[name], name=copied)
            layers.append(Copy(name=copied, inputs=(name,), output=copied))
            outputs.append(copied)
        else:
            outputs.append(name)
    return replace(graph, tensors=tensors, layers=tuple(layers), outputs=tuple(outputs))


def _insert_copies(graph: LayerGraph, *, to_halo: bool) -> LayerGraph:
    """Between a dense tensor and a reader that needs a halo, or a tensor with a halo and a dense reader."""
    halos = _halos(graph)
    produced_dense = {*graph.inputs}
    for layer in graph.layers:
        if isinstance(layer, Opaque | View):
            produced_dense.update((layer.output, *getattr(layer, "extra_outputs", ())))

    def needs_copy(layer: Layer, name: str) -> bool:
        if to_halo:
            return name in produced_dense and name == layer.inputs[0] and _pads(layer) > 0
        return isinstance(layer, Opaque | View) and halos.get(name, 0) > 0

    return _redirect(graph, needs_copy, suffix="halo" if to_halo else "dense")


def _redirect(graph, needs_copy, *, suffix: str) -> LayerGraph:  # type: ignore[no-untyped-def]
    """The graph with `name` replaced by one shared copy wherever `needs_copy(layer, name)`."""
    tensors: dict[str, TensorSpec] = dict(graph.tensors)
    copies: dict[str, str] = {}
    layers: list[Layer] = []
    for layer in graph.layers:
        renamed = list(layer.inputs)
        for i, name in enumerate(layer.inputs):
            if not needs_copy(layer, name):
                continue
            if name not in copies:
                copies[name] = _unused(f"{name}.{suffix}", tensors)
                tensors[copies[name]] = replace(tensors[name], name=copies[name])
                layers.append(Copy(name=copies[name], inputs=(name,), output=copies[name]))
            renamed[i] = copies[name]
        layers.append(_with_inputs(layer, tuple(renamed)))
    return replace(graph, tensors=tensors, layers=tuple(layers))


def _with_inputs(layer: Layer, inputs: tuple[str, ...]) -> Layer:
    if inputs == layer.inputs:
        return layer
    if isinstance(layer, Opaque):
        renamed = iter(inputs)
        arguments = tuple(next(renamed) if isinstance(a, str) else a for a in layer.arguments)
        return replace(layer, inputs=inputs, arguments=arguments)
    return replace(layer, inputs=inputs)


def _unused(name: str, taken: Mapping[str, TensorSpec]) -> str:
    while name in taken:
        name += "_"
    return name
