"""One arena for all intermediate tensors: offsets from live ranges, planned over the whole network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvmcomp.graph.layers import View
from tvmcomp.kernels.kernel import ALIGNMENT, SLACK
from tvmcomp.schedule.layouts import ScheduledGraph

__all__ = ["ArenaPlan", "Place", "plan_arena"]


@dataclass(frozen=True)
class Place:
    """Where a tensor lives: `region` is "arena" or a graph input's or output's name; `offset` in bytes."""

    region: str
    offset: int = 0


@dataclass(frozen=True)
class ArenaPlan:
    """A place for every tensor; `size` is the arena's bytes, slack included."""

    places: Mapping[str, Place]
    size: int


@dataclass
class _Block:
    name: str
    size: int
    first: int
    last: int
    offset: int = 0

    def conflicts(self, other: _Block) -> bool:
        return self.first <= other.last and other.first <= self.last


def plan_arena(scheduled: ScheduledGraph) -> ArenaPlan:
    """Largest tensors first, each at the lowest offset free over its whole life.

    A layer's inputs and outputs are alive together, so no kernel ever writes what it still reads.
    """
    graph = scheduled.graph
    root = _roots(scheduled)
    external = {name: Place(name) for name in (*graph.inputs, *graph.outputs)}
    blocks: dict[str, _Block] = {}
    for step, layer in enumerate(graph.layers):
        for name in (layer.output, *getattr(layer, "extra_outputs", ()), *layer.inputs):
            owner = root[name]
            if owner in external:
                continue
            size = _aligned(scheduled.layouts[owner].nbytes)
            block = blocks.setdefault(owner, _Block(owner, size, step, step))
            block.last = step
    placed: list[_Block] = []
    for block in sorted(blocks.values(), key=lambda b: (-b.size, b.first)):
        block.offset = _lowest_gap(block, [other for other in placed if block.conflicts(other)])
        placed.append(block)
    places = {
        name: external[owner] if owner in external else Place("arena", blocks[owner].offset)
        for name, owner in root.items()
        if owner in external or owner in blocks
    }
    end = max((block.offset + block.size for block in placed), default=0)
    return ArenaPlan(places, end + SLACK)


def _roots(scheduled: ScheduledGraph) -> dict[str, str]:
    """Tensor -> the tensor whose memory it is: itself, or what it is a view of."""
    root = {name: name for name in scheduled.graph.tensors}
    for layer in scheduled.graph.layers:
        if isinstance(layer, View):
            root[layer.output] = root[layer.inputs[0]]
    return root


def _lowest_gap(block: _Block, busy: list[_Block]) -> int:
    offset = 0
    for other in sorted(busy, key=lambda b: b.offset):
        if offset + block.size <= other.offset:
            break
        offset = max(offset, other.offset + other.size)
    return offset


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
