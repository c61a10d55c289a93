"""What a build tells of its kernel calls: one JSON-able row each, for the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tvmcomp.build.dump import layer_text
from tvmcomp.graph.layers import View

if TYPE_CHECKING:
    from tvmcomp.build.pipeline import BuildState
    from tvmcomp.schedule.layouts import ScheduledGraph

__all__ = ["kernel_rows"]


def kernel_rows(state: BuildState) -> tuple[Mapping[str, object], ...]:
    """Per call its layer, kernel, plan, and the tensors it reads and writes with their place in memory."""
    assert state.scheduled is not None
    assert state.linked is not None
    layers = {layer.name: layer for layer in state.scheduled.graph.layers}
    behind = _behind(state.scheduled)
    return tuple(
        {
            "layer": call.layer,
            "kind": type(layers[call.layer]).__name__,
            "function": call.function,
            "kernel": call.kernel.emitter,
            "isa": call.kernel.isa,
            "plan": str(call.kernel.plan) if call.kernel.plan is not None else "",
            "text": layer_text(layers[call.layer]),
            "constants_offset": call.constants_offset,
            "reads": [behind.get(name, name) for name in layers[call.layer].inputs],
            "writes": [
                _tensor(state.scheduled, name)
                for name in (
                    layers[call.layer].output,
                    *getattr(layers[call.layer], "extra_outputs", ()),
                )
            ],
        }
        for call in state.linked.calls
    )


def _behind(scheduled: ScheduledGraph) -> dict[str, str]:
    """View -> the tensor whose memory it is."""
    found: dict[str, str] = {}
    for layer in scheduled.graph.layers:
        if isinstance(layer, View):
            found[layer.output] = found.get(layer.inputs[0], layer.inputs[0])
    return found


def _tensor(scheduled: ScheduledGraph, name: str) -> dict[str, object]:
    spec, layout = scheduled.graph.tensors[name], scheduled.layouts[name]
    qparams = spec.qparams
    return {
        "name": name,
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "scale": None if qparams is None else qparams.scale,
        "zero_point": None if qparams is None else qparams.zero_point,
        "extent": [layout.batch, layout.height, layout.width, layout.channels],
        "halo": layout.halo,
        "pitch": layout.pitch,
    }
