"""The build as a visible list of phases, from a model to a linked library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tvmcomp.build.arena import ArenaPlan, plan_arena
from tvmcomp.build.dump import dump_state
from tvmcomp.build.link import Linked, link
from tvmcomp.build.lower import lower
from tvmcomp.compress.quantize import adopt_weights
from tvmcomp.graph.canonical import canonicalize, is_canonical
from tvmcomp.graph.layers import LayerGraph
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.vector import isa_for
from tvmcomp.model import Model
from tvmcomp.schedule.layouts import ScheduledGraph, assign_layouts
from tvmcomp.schedule.select import select_kernels
from tvmcomp.target import Target

__all__ = ["PHASES", "BuildState", "build"]


@dataclass(frozen=True, eq=False)
class BuildState:
    """What the phases so far have made; a phase reads what earlier ones filled in and fills in its own."""

    model: Model
    target: Target
    graph: LayerGraph | None = None
    scheduled: ScheduledGraph | None = None
    kernels: dict[str, Kernel] | None = None
    arena: ArenaPlan | None = None
    linked: Linked | None = None


def _canonical(state: BuildState) -> BuildState:
    model = state.model if is_canonical(state.model) else canonicalize(state.model)
    return replace(state, model=adopt_weights(model))


def _lower(state: BuildState) -> BuildState:
    return replace(state, graph=lower(state.model))


def _layouts(state: BuildState) -> BuildState:
    assert state.graph is not None
    return replace(state, scheduled=assign_layouts(state.graph))


def _kernels(state: BuildState) -> BuildState:
    assert state.scheduled is not None
    isa = isa_for(state.target.features)
    return replace(state, kernels=select_kernels(state.scheduled, isa))


def _arena(state: BuildState) -> BuildState:
    assert state.scheduled is not None
    return replace(state, arena=plan_arena(state.scheduled))


def _link(state: BuildState) -> BuildState:
    assert state.scheduled is not None
    assert state.kernels is not None
    assert state.arena is not None
    linked = link(state.scheduled, state.kernels, state.arena, state.target.tvm_target())
    return replace(state, linked=linked)


PHASES: tuple[tuple[str, Callable[[BuildState], BuildState]], ...] = (
    # One logical form whatever the source: NHWC, batch norms folded, QDQ explicit, weights that come as
    # codes in our packed form.
    ("canonical", _canonical),
    # Relax to layers: fusion decided, integer arithmetic fixed.
    ("lower", _lower),
    # Logical to physical: halos, pitches, the copies that remain.
    ("layouts", _layouts),
    # One kernel per layer, by kind of layer and instruction set.
    ("kernels", _kernels),
    # One storage for all intermediate tensors.
    ("arena", _arena),
    # Machine code.
    ("link", _link),
)


def build(model: Model, target: Target, dump_ir: Path | None = None) -> BuildState:
    """Run every phase; with `dump_ir` each one's result is written there as `NN_phase.txt`.

    Raises TargetError if nothing compiles for `target` yet, ModelError for an operator without lowering.
    """
    target.require_available()
    state = BuildState(model, target)
    for number, (name, phase) in enumerate(PHASES):
        state = phase(state)
        if dump_ir is not None:
            dump_state(state, dump_ir / f"{number:02d}_{name}.txt", name)
    return state
