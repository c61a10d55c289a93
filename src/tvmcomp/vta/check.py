"""The static checker: proves that tokens order all accesses to one memory, or shows two that race.

Every token queue has one stage that puts in and one that takes out, both in order, so the k-th token taken is the k-th
put in whatever the timing: the order "happens before" is the program order of the three queues plus these edges,
and it is exact. Two instructions race if neither comes before the other and one writes what the other touches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from tvmcomp.vta.bounds import dram_rows, illegal, malformed, padded_shape
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import Program
from tvmcomp.vta.footprint import Footprint, footprint, overlap_dram
from tvmcomp.vta.isa import (
    Alu,
    Finish,
    Gemm,
    Instruction,
    Load,
    Stage,
    Store,
    decode_uops,
    stage_of,
)
from tvmcomp.vta.loops import illegal_loops, iterations
from tvmcomp.vta.text import format_instruction
from tvmcomp.vta.tokens import TOKENS, dangling, in_order, pops, pushes, queues_of

__all__ = ["Finding", "check"]

_MOST = 20
# Two instructions of one stage never race.
_SIDE_BY_SIDE = (
    (Stage.LOAD, Stage.COMPUTE),
    (Stage.STORE, Stage.COMPUTE),
    (Stage.LOAD, Stage.STORE),
)


@dataclass(frozen=True)
class Finding:
    """kind: race, deadlock, finish, tokens, undecided or illegal; `instructions` are indices into launch `launch`."""

    kind: str
    launch: int
    instructions: tuple[int, ...]
    message: str


def check(program: Program, config: VtaConfig) -> list[Finding]:
    """All that is wrong with the order of `program`; none is a proof that every timing gives the same result.

    Of many races in one launch the first _MOST are shown.
    """
    findings: list[Finding] = []
    tokens = dict.fromkeys(TOKENS, 0)
    uops = _UopMemory(program, config)
    for launch, stream in enumerate(program.launches):
        order = _Order(stream, tokens)
        if order.blocked:
            findings += _illegal(launch, stream, program, config)
            findings.append(_deadlock(launch, stream, order))
            return findings
        findings += _finish(launch, stream, order)
        wrong = list(_illegal(launch, stream, program, config))
        findings += wrong
        # What an instruction touches that no machine runs is anybody's guess.
        if not wrong:
            findings += _races(launch, stream, order, uops, config)
        tokens = order.tokens
    left = [f"{count} in {queue}" for queue, count in tokens.items() if count]
    if left:
        message = f"tokens are left after the last launch: {', '.join(left)}"
        findings.append(Finding("tokens", len(program.launches) - 1, (), message))
    return findings


def _illegal(
    launch: int, stream: Sequence[Instruction], program: Program, config: VtaConfig
) -> Iterator[Finding]:
    """Instructions that no machine runs, whatever the micro-ops are."""
    for index, instruction in enumerate(stream):
        reason = illegal(instruction, config, program.dram.size)
        nowhere = dangling(instruction)
        if reason is None and nowhere:
            reason = f"{nowhere[0]} names a queue that does not exist; clear it"
        if reason is not None:
            message = f"instruction {index} ({format_instruction(instruction)}): {reason}"
            yield Finding("illegal", launch, (index,), message)


class _Order:
    """Happens-before: clock[i, s] instructions of stage s are complete before instruction i begins."""

    def __init__(self, stream: Sequence[Instruction], tokens: dict[str, int]) -> None:
        self.queues = {stage: list(queue) for stage, queue in queues_of(stream).items()}
        self.stage = [stage_of(instruction) for instruction in stream]
        self.position = np.zeros(len(stream), np.int64)
        for queue in self.queues.values():
            self.position[queue] = np.arange(len(queue))
        self.clock = np.zeros((len(stream), len(Stage)), np.int64)
        # Tokens of earlier launches come first and carry no order within this one.
        waiting: dict[str, deque[int | None]] = {q: deque([None] * n) for q, n in tokens.items()}
        rest = queues_of(stream)
        for index in in_order(rest, lambda head: all(waiting[q] for q in pops(stream[head]))):
            self._enter(index, [waiting[token].popleft() for token in pops(stream[index])])
            for token in pushes(stream[index]):
                waiting[token].append(index)
        self.tokens = {token: len(pushers) for token, pushers in waiting.items()}
        self.blocked = tuple(queue[0] for queue in rest.values() if queue)

    def _enter(self, index: int, pushers: list[int | None]) -> None:
        clock, stage, position = self.clock[index], self.stage[index], self.position[index]
        if position:
            np.maximum(clock, self.clock[self.queues[stage][position - 1]], out=clock)
        for pusher in pushers:
            if pusher is not None:
                np.maximum(clock, self._after(pusher), out=clock)
        clock[stage] = position

    def _after(self, index: int) -> np.ndarray:
        after = self.clock[index].copy()
        after[self.stage[index]] = self.position[index] + 1
        return after

    def unordered(self, stage: Stage, other: Stage) -> Iterator[tuple[int, int]]:
        """Instructions of `stage`, each with every one of `other` that may run before as well as after it."""
        queue, against = self.queues[stage], self.queues[other]
        first = self.clock[queue, other]
        end = np.searchsorted(self.clock[against, stage], self.position[queue], side="right")
        for index, begin, stop in zip(queue, first.tolist(), end.tolist(), strict=True):
            for opposite in against[begin:stop]:
                yield index, opposite


class _UopMemory:
    """The micro-ops as the compute queue will find them, as far as the DRAM image tells."""

    def __init__(self, program: Program, config: VtaConfig) -> None:
        self._config = config
        self._dram = program.dram
        self._words = np.zeros(config.depth(Memory.UOP), np.uint32)
        self._known = np.zeros(config.depth(Memory.UOP), bool)
        stores = [i for s in program.launches for i in s if isinstance(i, Store)]
        self._written = [
            footprint(store, None, config).dram_writes for store in stores if not malformed(store)
        ]

    def load(self, instruction: Load) -> None:
        """Take in a LOAD UOP, whose elements exist; what the program itself may have written is not known."""
        if not instruction.x_size:
            return
        height, width = padded_shape(instruction)
        begin, end = instruction.sram_base, instruction.sram_base + height * width
        rows = footprint(instruction, None, self._config).dram_reads
        starts, size = dram_rows(instruction, self._config)
        tile = np.zeros((height, width), np.uint32)
        left, right = instruction.x_pad_0, instruction.x_pad_0 + instruction.x_size
        for row, start in enumerate(starts.tolist(), instruction.y_pad_0):
            tile[row, left:right] = self._dram[start : start + size].view(np.uint32)
        self._words[begin:end] = tile.reshape(-1)
        self._known[begin:end] = all(overlap_dram(rows, w) is None for w in self._written)

    def of(self, instruction: Gemm | Alu) -> np.ndarray | None:
        """[n, 3]; None if a micro-op is not known."""
        window = slice(instruction.uop_bgn, instruction.uop_end)
        if not self._known[window].all():
            return None
        return decode_uops(self._words[window], self._config)


def _deadlock(launch: int, stream: Sequence[Instruction], order: _Order) -> Finding:
    parts = [
        f"instruction {i} ({format_instruction(stream[i])}) waits for {' and '.join(pops(stream[i]))}"
        for i in order.blocked
    ]
    return Finding("deadlock", launch, order.blocked, f"deadlock: {'; '.join(parts)}")


def _finish(launch: int, stream: Sequence[Instruction], order: _Order) -> Iterator[Finding]:
    ends = [i for i, instruction in enumerate(stream) if isinstance(instruction, Finish)]
    if not ends:
        yield Finding("finish", launch, (), "no FINISH; end the stream with one")
        return
    end = ends[0]
    for stage, queue in order.queues.items():
        done = int(order.clock[end][stage]) + (stage == Stage.COMPUTE)
        if done < len(queue):
            late = queue[done]
            yield Finding(
                "finish",
                launch,
                (end, late),
                f"instruction {late} ({format_instruction(stream[late])}) may run after FINISH, "
                f"instruction {end}; let FINISH wait for it",
            )


def _races(
    launch: int, stream: Sequence[Instruction], order: _Order, uops: _UopMemory, config: VtaConfig
) -> Iterator[Finding]:
    prints: list[Footprint] = []
    for index, instruction in enumerate(stream):
        known: np.ndarray | None = None
        if isinstance(instruction, Load) and instruction.memory_type == Memory.UOP:
            uops.load(instruction)
        if isinstance(instruction, Gemm | Alu) and iterations(instruction) > 0:
            known = uops.of(instruction)
            finding = _micro_ops(launch, index, instruction, known, config)
            if finding is not None:
                yield finding
            if finding is not None and finding.kind == "illegal":
                prints.append(Footprint())
                continue
        prints.append(footprint(instruction, known, config))
    for first, second, where in islice(_conflicts(order, prints), _MOST):
        yield Finding(
            "race", launch, (first, second),
            f"instructions {first} ({format_instruction(stream[first])}) and {second} "
            f"({format_instruction(stream[second])}) both touch {where}, and no token orders them",
        )  # fmt: skip


def _conflicts(order: _Order, prints: Sequence[Footprint]) -> Iterator[tuple[int, int, str]]:
    for stage, other in _SIDE_BY_SIDE:
        for one, two in order.unordered(stage, other):
            where = _conflict(prints[one], prints[two])
            if where is not None:
                yield min(one, two), max(one, two), where


def _micro_ops(
    launch: int, index: int, instruction: Gemm | Alu, known: np.ndarray | None, config: VtaConfig
) -> Finding | None:
    """What is wrong with the micro-ops an instruction runs, or that they are not known."""
    what = f"instruction {index} ({format_instruction(instruction)})"
    if known is None:
        message = (
            f"{what} runs micro-ops that the program's image does not hold; "
            "it is taken to touch everything"
        )
        return Finding("undecided", launch, (index,), message)
    reason = illegal_loops(instruction, config, known)
    return None if reason is None else Finding("illegal", launch, (index,), f"{what}: {reason}")


def _conflict(a: Footprint, b: Footprint) -> str | None:
    for one, two in ((a, b), (b, a)):
        for memory, written in one.writes.items():
            both = written & (two.reads.get(memory, 0) | two.writes.get(memory, 0))
            if both:
                element = (both & -both).bit_length() - 1
                return f"{memory.name} element {element}"
        for rows in (two.dram_reads, two.dram_writes):
            span = overlap_dram(one.dram_writes, rows)
            if span is not None:
                return f"DRAM bytes {span[0]:#x} to {span[1] - 1:#x}"
    return None
