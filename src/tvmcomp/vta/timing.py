"""The cycle model: three in-order servers, four token queues, and one read channel that they and the fetcher share.

Two sets of constants (specification, section 8): `CLASSIC` was measured on the un-pipelined RTL, `PIPELINED` was read
from the source of the later one.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from tvmcomp.errors import VtaError
from tvmcomp.vta.bounds import dram_rows, illegal, on_chip, padded_shape
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import Program
from tvmcomp.vta.isa import (
    INSTRUCTION_BYTES,
    Alu,
    Finish,
    Gemm,
    Instruction,
    Load,
    Stage,
    Store,
    stage_of,
)
from tvmcomp.vta.loops import iterations
from tvmcomp.vta.text import format_instruction
from tvmcomp.vta.tokens import TOKENS, pops, pushes, queues_of

__all__ = [
    "BUS_BYTES",
    "CLASSIC",
    "PIPELINED",
    "STORE_BYTES",
    "TIMINGS",
    "Event",
    "Profile",
    "Timing",
    "profile",
]

BUS_BYTES = 8  # a beat, and the zeros that padding writes in a cycle
STORE_BYTES = 16


@dataclass(frozen=True)
class Timing:
    """Cycles; `read_latency` L is the memory's, from a request's arrival to its first beat.

    gemm, reset, imm, tensor: (per iteration, per instruction); request: of a read, beside L and its beats;
    outstanding: reads in flight at once; burst: bytes, no read crosses a multiple of it; window: instructions fetched
    at a time; store: (per 16 bytes, per row).
    """

    name: str
    gemm: tuple[int, int]
    reset: tuple[int, int]
    imm: tuple[int, int]
    tensor: tuple[int, int]
    outstanding: int
    burst: int
    window: int
    padding_overlaps: bool
    request: int = 2
    nop: int = 2
    dispatch: int = 1
    store: tuple[int, int] = (3, 2)
    read_latency: int = 16


CLASSIC = Timing(
    name="classic", gemm=(4, 6), reset=(4, 3), imm=(5, 3), tensor=(6, 3), outstanding=1, burst=2048,
    window=128, padding_overlaps=False,
)  # fmt: skip
PIPELINED = Timing(
    name="pipelined", gemm=(1, 7), reset=(1, 7), imm=(1, 7), tensor=(2, 7), outstanding=16, burst=128,
    window=8, padding_overlaps=True,
)  # fmt: skip
TIMINGS: Mapping[str, Timing] = {timing.name: timing for timing in (CLASSIC, PIPELINED)}


@dataclass(frozen=True)
class Event:
    """One instruction: cycles [start, end) in its stage; it could have started at `ready` but for its tokens."""

    launch: int
    index: int
    stage: Stage
    ready: int
    start: int
    end: int


@dataclass(frozen=True)
class Profile:
    """cycles: over all launches; macs: int8 multiply-accumulates; bytes_read, bytes_written: DRAM traffic of
    LOAD and STORE, without the instructions."""

    timing: Timing
    cycles: int
    events: tuple[Event, ...]
    macs: int
    bytes_read: int
    bytes_written: int

    def busy(self, stage: Stage) -> int:
        """Cycles in which `stage` works on an instruction."""
        return sum(event.end - event.start for event in self.events if event.stage == stage)

    def utilization(self, stage: Stage) -> float:
        """`busy` as a share of all cycles, 0 to 1."""
        return self.busy(stage) / self.cycles if self.cycles else 0.0


# Runs until it yields: a cycle to go on at, or a token queue to take from. It is sent the cycle it goes on at.
_Process: TypeAlias = Generator[int | str, int, None]


def profile(program: Program, config: VtaConfig, timing: Timing = CLASSIC) -> Profile:
    """When every instruction runs. Raises VtaError on a deadlock, a missing FINISH, or an illegal instruction.

    Instructions that still wait when FINISH has run are left out, as the simulator leaves them.
    """
    start, events = 0, list[Event]()
    tokens = dict.fromkeys(TOKENS, 0)
    for launch in range(len(program.launches)):
        run = _Launch(program, launch, config, timing, start, tokens)
        start = run.run()
        events += run.events
        tokens = {queue: len(times) for queue, times in run.tokens.items()}
    every = [i for stream in program.launches for i in stream]
    gemms = [i for i in every if isinstance(i, Gemm) and not i.reset]
    return Profile(
        timing=timing,
        cycles=start,
        events=tuple(events),
        macs=sum(max(iterations(i), 0) for i in gemms) * config.batch * config.block**2,
        bytes_read=sum(_traffic(i, config) for i in every if isinstance(i, Load)),
        bytes_written=sum(_traffic(i, config) for i in every if isinstance(i, Store)),
    )


def _traffic(instruction: Load | Store, config: VtaConfig) -> int:
    if not instruction.x_size:
        return 0
    starts, size = dram_rows(instruction, config)
    return len(starts) * size


class _Channel:
    """The read channel: `outstanding` requests in flight, one beat per cycle, first come first served."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._free = 0
        self._ends: deque[int] = deque([0] * timing.outstanding, maxlen=timing.outstanding)

    def read(self, now: int, beats: int) -> int:
        """When a request made at `now` has its last beat."""
        issued = max(now, self._ends[0])
        first = issued + self._timing.read_latency + self._timing.request
        end = max(first, self._free) + beats
        self._free = end
        self._ends.append(end)
        return end


class _Launch:
    def __init__(
        self,
        program: Program,
        launch: int,
        config: VtaConfig,
        timing: Timing,
        start: int,
        tokens: Mapping[str, int],
    ) -> None:
        self.events: list[Event] = []
        self.tokens = {queue: deque([start] * count) for queue, count in tokens.items()}
        self._launch = launch
        self._stream = program.launches[launch]
        self._dram_bytes = program.dram.size
        self._config = config
        self._timing = timing
        self._start = start
        self._channel = _Channel(timing)
        self._queues = queues_of(self._stream)
        self._finish: int | None = None
        self._agenda: list[tuple[int, int, _Process]] = []
        self._waiting: dict[str, _Process] = {}
        self._turn = 0

    def run(self) -> int:
        """The cycle at which FINISH ends."""
        self._refuse_illegal()
        for stage in Stage:
            self.tokens[f"dispatch {stage}"] = deque()
        for process in (self._fetch(), *map(self._work, Stage)):
            self._go_on(process, next(process))
        while self._agenda:
            now, _, process = heapq.heappop(self._agenda)
            try:
                self._go_on(process, process.send(now), now)
            except StopIteration:
                continue
        if self._finish is None:
            raise VtaError(f"launch {self._launch}: {self._stuck() or 'no FINISH'}")
        for stage in Stage:
            del self.tokens[f"dispatch {stage}"]
        return self._finish

    def _refuse_illegal(self) -> None:
        for index, instruction in enumerate(self._stream):
            reason = illegal(instruction, self._config, self._dram_bytes)
            if reason is not None:
                text = format_instruction(instruction)
                raise VtaError(f"launch {self._launch}, instruction {index} ({text}): {reason}")

    def _stuck(self) -> str | None:
        blocked = []
        for queue in (name for name in TOKENS if name in self._waiting):
            stage = TOKENS[queue].to
            done = sum(event.stage == stage for event in self.events)
            index = self._queues[stage][done]
            text = format_instruction(self._stream[index])
            blocked.append(f"instruction {index} ({text}) waits for a token in {queue}")
        return f"deadlock: {'; '.join(blocked)}" if blocked else None

    def _go_on(self, process: _Process, wish: int | str, now: int = 0) -> None:
        if isinstance(wish, int):
            self._turn += 1
            heapq.heappush(self._agenda, (wish, self._turn, process))
        elif self.tokens[wish]:
            self._go_on(process, max(now, self.tokens[wish].popleft()))
        else:
            self._waiting[wish] = process

    def _put(self, queue: str, now: int) -> None:
        self.tokens[queue].append(now)
        process = self._waiting.pop(queue, None)
        if process is not None:
            self._go_on(process, self.tokens[queue].popleft())

    def _fetch(self) -> _Process:
        timing = self._timing
        now = yield self._start
        for first in range(0, len(self._stream), timing.window):
            window = self._stream[first : first + timing.window]
            now = yield self._channel.read(now, len(window) * INSTRUCTION_BYTES // BUS_BYTES)
            for instruction in window:
                now = yield now + timing.dispatch
                self._put(f"dispatch {stage_of(instruction)}", now)

    def _work(self, stage: Stage) -> _Process:
        now = yield self._start
        for index in self._queues[stage]:
            instruction = self._stream[index]
            ready = now = yield f"dispatch {stage}"
            for queue in pops(instruction):
                now = yield queue
            start = now
            if isinstance(instruction, Load) and instruction.x_size:
                now = yield from self._load(instruction, now)
            else:
                now = yield now + self._cycles(instruction)
            for queue in pushes(instruction):
                self._put(queue, now)
            self.events.append(Event(self._launch, index, stage, ready, start, now))
            if isinstance(instruction, Finish):
                self._finish = now

    def _load(self, load: Load, now: int) -> Generator[int | str, int, int]:
        timing, start, end = self._timing, now, now
        height, width = padded_shape(load)
        element = self._config.element_bytes(on_chip(Memory(load.memory_type)))
        zeros = (height * width - load.x_size * load.y_size) * element
        padding = -(-zeros // BUS_BYTES)
        starts, size = dram_rows(load, self._config)
        for row in starts.tolist():
            for beats in _bursts(row, size, timing.burst):
                end = self._channel.read(now, beats)
                now = yield (now + 1 if timing.outstanding > 1 else end)
        if timing.padding_overlaps:
            return (yield max(now, end, start + padding))
        return (yield max(now, end) + padding)

    def _cycles(self, instruction: Instruction) -> int:
        timing = self._timing
        if isinstance(instruction, Store) and instruction.x_size:
            size = instruction.x_size * self._config.element_bytes(Memory.OUT)
            per_unit, per_row = timing.store
            return instruction.y_size * (per_unit * -(-size // STORE_BYTES) + per_row)
        if isinstance(instruction, Gemm | Alu):
            if isinstance(instruction, Gemm):
                slope, fixed = timing.reset if instruction.reset else timing.gemm
            else:
                slope, fixed = timing.imm if instruction.use_imm else timing.tensor
            return slope * max(iterations(instruction), 0) + fixed
        return timing.nop


def _bursts(address: int, size: int, burst: int) -> Generator[int, None, None]:
    """Beats of each read that `size` bytes at `address` take."""
    end = address + size
    while address < end:
        stop = min(end, (address // burst + 1) * burst)
        yield -(-stop // BUS_BYTES) - address // BUS_BYTES
        address = stop
