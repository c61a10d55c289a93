"""The four token queues between neighbouring stages, and the flags that name them."""

from __future__ import annotations

from collections.abc import Mapping

from tvmcomp.vta.isa import Instruction, Stage, stage_of

__all__ = ["TOKENS", "dangling", "pops", "pushes"]

TOKENS = ("l2g", "s2g", "g2l", "g2s")
# Stage -> (flag, token queue) of what it waits for and of what it hands on.
_POPS: Mapping[Stage, tuple[tuple[str, str], ...]] = {
    Stage.LOAD: (("pop_next", "g2l"),),
    Stage.COMPUTE: (("pop_prev", "l2g"), ("pop_next", "s2g")),
    Stage.STORE: (("pop_prev", "g2s"),),
}
_PUSHES: Mapping[Stage, tuple[tuple[str, str], ...]] = {
    Stage.LOAD: (("push_next", "l2g"),),
    Stage.COMPUTE: (("push_prev", "g2l"), ("push_next", "g2s")),
    Stage.STORE: (("push_prev", "s2g"),),
}
_DANGLING: Mapping[Stage, tuple[str, ...]] = {
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
    """Flags that are set and name a stage before the load or behind the store queue."""
    flags = _DANGLING[stage_of(instruction)]
    return tuple(flag for flag in flags if getattr(instruction, flag))
