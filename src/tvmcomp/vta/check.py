"""The static checker: proves that tokens order all accesses to one memory, or shows two that race.

Every token queue has one stage that puts in and one that takes out, both in order, so the k-th token taken is the k-th
put in whatever the timing: the order "happens before" is the program order of the three queues plus these edges,
and it is exact. Two instructions race if neither comes before the other and one writes what the other touches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tvmcomp.vta.compute import iterations
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import Program
from tvmcomp.vta.footprint import Footprint, footprint, overlap_dram
from tvmcomp.vta.isa import (
    Alu,
    Finish,
    Gemm,
    Illegal,
    Instruction,
    Load,
    Stage,
    decode_uops,
    stage_of,
)
from tvmcomp.vta.text import format_instruction
from tvmcomp.vta.tokens import TOKENS, pops, pushes
from tvmcomp.vta.transfer import dram_rows, padded_shape

__all__ = ["Finding", "check"]


@dataclass(frozen=True)
class Finding:
    """kind: race, deadlock, finish, tokens, undecided or illegal; `instructions` are indices into launch `launch`."""

    kind: str
    launch: int
    instructions: tuple[int, ...]
    message: str


def check(program: Program, config: VtaConfig) -> list[Finding]:
    """All that is wrong with the order of `program`; none is a proof that every timing gives the same result."""
    findings: list[Finding] = []
    tokens = dict.fromkeys(TOKENS, 0)
    uops = _UopMemory(program, config)
    for launch, stream in enumerate(program.launches):
        order = _Order(stream, tokens)
        for index, instruction in enumerate(stream):
            if isinstance(instruction, Illegal):
                message = f"instruction {index}: {instruction.reason}"
                findings.append(Finding("illegal", launch, (index,), message))
        if order.blocked:
            findings.append(_deadlock(launch, stream, order))
            break
        findings += _finish(launch, stream, order)
        findings += _races(launch, stream, order, uops, config)
        tokens = order.tokens
    left = [f"{count} in {queue}" for queue, count in tokens.items() if count]
    if left and not any(finding.kind == "deadlock" for finding in findings):
        message = f"tokens are left after the last launch: {', '.join(left)}"
        findings.append(Finding("tokens", len(program.launches) - 1, (), message))
    return findings


class _Order:
    """Happens-before: clock[i][s] instructions of stage s are complete before instruction i begins."""

    def __init__(self, stream: Sequence[Instruction], tokens: dict[str, int]) -> None:
        self.queues: dict[Stage, list[int]] = {stage: [] for stage in Stage}
        self.position = np.zeros(len(stream), np.int64)
        self.stage = [stage_of(instruction) for instruction in stream]
        for index, instruction in enumerate(stream):
            queue = self.queues[stage_of(instruction)]
            self.position[index] = len(queue)
            queue.append(index)
        self.clock = np.zeros((len(stream), len(Stage)), np.int64)
        self.tokens = dict(tokens)
        # Tokens of earlier launches come first and carry no order within this one.
        waiting: dict[str, list[int | None]] = {q: [None] * n for q, n in tokens.items()}
        heads = dict.fromkeys(Stage, 0)
        moved = True
        while moved:
            moved = False
            for stage in Stage:
                while heads[stage] < len(self.queues[stage]):
                    index = self.queues[stage][heads[stage]]
                    if not all(waiting[token] for token in pops(stream[index])):
                        break
                    pushers = [waiting[token].pop(0) for token in pops(stream[index])]
                    self._enter(index, stage, heads[stage], pushers)
                    for token in pushes(stream[index]):
                        waiting[token].append(index)
                    heads[stage] += 1
                    moved = True
        self.tokens = {token: len(pushers) for token, pushers in waiting.items()}
        self.blocked = tuple(q[heads[s]] for s, q in self.queues.items() if heads[s] < len(q))

    def _enter(self, index: int, stage: Stage, position: int, pushers: list[int | None]) -> None:
        clock = self.clock[index]
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

    def unordered(self, index: int, stage: Stage, other: Stage) -> list[int]:
        """Instructions of `other` that may run before as well as after instruction `index` of `stage`."""
        queue = self.queues[other]
        clocks = [int(self.clock[i][stage]) for i in queue]
        end = bisect_right(clocks, int(self.position[index]))
        return queue[int(self.clock[index][other]) : end]


class _UopMemory:
    """The micro-ops as the compute queue will find them, as far as the DRAM image tells."""

    def __init__(self, program: Program, config: VtaConfig) -> None:
        self._config = config
        self._dram = program.dram
        self._words = np.zeros(config.depth(Memory.UOP), np.uint32)
        self._known = np.zeros(config.depth(Memory.UOP), bool)
        stores = [i for s in program.launches for i in s if stage_of(i) == Stage.STORE]
        self._written = [footprint(store, None, config).dram_writes for store in stores]

    def load(self, instruction: Load) -> bool:
        """Take in a LOAD UOP; False if the program itself writes what it reads, or it reads outside of the image."""
        height, width = padded_shape(instruction)
        begin, end = instruction.sram_base, instruction.sram_base + height * width
        rows = footprint(instruction, None, self._config).dram_reads
        starts, size = dram_rows(instruction, self._config)
        inside = not len(rows) or rows[-1, 1] <= self._dram.size
        known = inside and all(overlap_dram(rows, w) is None for w in self._written)
        tile = np.zeros((height, width), np.uint32)
        if known:
            for row, start in enumerate(starts.tolist()):
                words = self._dram[start : start + size].view(np.uint32)
                tile[instruction.y_pad_0 + row, instruction.x_pad_0 :][: instruction.x_size] = words
        stop = min(end, len(self._words))
        self._words[begin:stop] = tile.reshape(-1)[: max(stop - begin, 0)]
        self._known[begin:stop] = known
        return known

    def of(self, instruction: Gemm | Alu) -> np.ndarray | None:
        """[n, 3], None if a micro-op is not known."""
        window = slice(instruction.uop_bgn, instruction.uop_end)
        if iterations(instruction) <= 0 or not self._known[window].all():
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
    prints: list[Footprint] = [Footprint()] * len(stream)
    for stage in Stage:
        for index in order.queues[stage]:
            instruction = stream[index]
            known: np.ndarray | None = None
            if isinstance(instruction, Gemm | Alu):
                known = uops.of(instruction)
                if known is None and iterations(instruction) > 0:
                    yield Finding(
                        "undecided", launch, (index,),
                        f"instruction {index} ({format_instruction(instruction)}) runs micro-ops that the "
                        "program's image does not hold; it is taken to touch everything",
                    )  # fmt: skip
            if (
                isinstance(instruction, Load)
                and instruction.memory_type == Memory.UOP
                and instruction.x_size
            ):
                uops.load(instruction)
            prints[index] = footprint(instruction, known, config)
    for stage, other in (
        (Stage.LOAD, Stage.COMPUTE),
        (Stage.STORE, Stage.COMPUTE),
        (Stage.LOAD, Stage.STORE),
    ):
        for index in order.queues[stage]:
            for against in order.unordered(index, stage, other):
                where = _conflict(prints[index], prints[against])
                if where is not None:
                    first, second = sorted((index, against))
                    yield Finding(
                        "race", launch, (first, second),
                        f"instructions {first} ({format_instruction(stream[first])}) and {second} "
                        f"({format_instruction(stream[second])}) both touch {where}, and no token orders them",
                    )  # fmt: skip


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
