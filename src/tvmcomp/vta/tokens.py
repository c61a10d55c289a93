"""The three instruction queues, the four token queues between them, and the order they let instructions run in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tvmcomp.vta.isa import Instruction, Stage, stage_of

__all__ = ["TOKENS", "TokenQueue", "dangling", "in_order", "pops", "pushes", "queues_of"]


@dataclass(frozen=True)
class TokenQueue:
    """Instructions of `source` put a token in with their flag `push`, those of `to` take one out with `pop`."""

    source: Stage
    push: str
    to: Stage
    pop: str


TOKENS: Mapping[str, TokenQueue] = {
    "l2g": TokenQueue(Stage.LOAD, "push_next", Stage.COMPUTE, "pop_prev"),
    "s2g": TokenQueue(Stage.STORE, "push_prev", Stage.COMPUTE, "pop_next"),
    "g2l": TokenQueue(Stage.COMPUTE, "push_prev", Stage.LOAD, "pop_next"),
    "g2s": TokenQueue(Stage.COMPUTE, "push_next", Stage.STORE, "pop_prev"),
}
# Stage -> (flag, token queue); the flags that are left name a stage before the load or behind the store queue.
_POPS = {s: [(q.pop, name) for name, q in TOKENS.items() if q.to == s] for s in Stage}
_PUSHES = {s: [(q.push, name) for name, q in TOKENS.items() if q.source == s] for s in Stage}
_DANGLING = {
    Stage.LOAD: ("pop_prev", "push_prev"),
    Stage.COMPUTE: (),
    Stage.STORE: ("pop_next", "push_next"),
}


def pops(instruction: Instruction) -> tuple[str, ...]:
    """Token queues the instruction takes one token each from, before it runs."""
    return tuple(q for flag, q in _POPS[stage_of(instruction)] if getattr(instruction, flag, 0))


def pushes(instruction: Instruction) -> tuple[str, ...]:
    """Token queues the instruction puts one token each into, after it ran."""
    return tuple(q for flag, q in _PUSHES[stage_of(instruction)] if getattr(instruction, flag, 0))


def dangling(instruction: Instruction) -> tuple[str, ...]:
    """Flags that are set and name a stage that does not exist."""
    flags = _DANGLING[stage_of(instruction)]
    return tuple(flag for flag in flags if getattr(instruction, flag))


def queues_of(stream: Sequence[Instruction]) -> dict[Stage, deque[int]]:
    """Indices of the instructions of each stage, in order."""
    queues: dict[Stage, deque[int]] = {stage: deque() for stage in Stage}
    for index, instruction in enumerate(stream):
        queues[stage_of(instruction)].append(index)
    return queues


def in_order(
    queues: Mapping[Stage, deque[int]],
    ready: Callable[[int], bool],
    start: Stage = Stage.COMPUTE,
) -> Iterator[int]:
    """Instructions in the order they run: each stage from `start` on goes on until its next one is not `ready`.

    Taken from `queues` once the caller asks for the next; what no longer becomes ready is left there.
    """
    order = [Stage((start + turn) % len(Stage)) for turn in range(len(Stage))]
    moved = True
    while moved:
        moved = False
        for queue in (queues[stage] for stage in order):
            while queue and ready(queue[0]):
                yield queue[0]
                queue.popleft()
                moved = True
