"""Text of what a phase made, for `--dump-ir`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tvmcomp.build.pipeline import BuildState
    from tvmcomp.graph.layers import Layer, LayerGraph

__all__ = ["dump_state", "layer_text"]


def dump_state(state: BuildState, path: Path, phase: str) -> None:
    """Write the newest result in `state` to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text(state, phase) + "\n")


def layer_text(layer: Layer) -> str:
    """One line: kind, name, inputs -> output, and every field that is not an array or a function."""
    shown = []
    for item in fields(layer):
        if item.name in ("name", "inputs", "output", "function", "arguments"):
            continue
        value = getattr(layer, item.name)
        if isinstance(value, np.ndarray):
            value = f"{value.dtype}{list(value.shape)}"
        shown.append(f"{item.name}={value}")
    source = ", ".join(layer.inputs)
    return f"{type(layer).__name__} {layer.name}: {source} -> {layer.output}  {' '.join(shown)}"


def _graph_text(graph: LayerGraph) -> str:
    return "\n".join(layer_text(layer) for layer in graph.layers)


def _text(state: BuildState, phase: str) -> str:
    if phase == "canonical" or state.graph is None:
        return str(state.model.module.script())
    if phase == "lower" or state.scheduled is None:
        return _graph_text(state.graph)
    if phase == "layouts" or state.kernels is None:
        places = "\n".join(f"{n}: {layout}" for n, layout in state.scheduled.layouts.items())
        return f"{_graph_text(state.scheduled.graph)}\n\n{places}"
    if phase == "kernels" or state.arena is None:
        distinct = {kernel.key: kernel for kernel in state.kernels.values()}
        return "\n\n".join(
            f"# {k.emitter} {k.isa} {k.plan}\n{k.func.script()}" for k in distinct.values()
        )
    if phase == "arena" or state.linked is None:
        places = "\n".join(f"{name}: {place}" for name, place in state.arena.places.items())
        return f"size {state.arena.size}\n{places}"
    return "\n".join(
        f"{call.function}  {call.layer}  constants at {call.constants_offset}"
        for call in state.linked.calls
    )
