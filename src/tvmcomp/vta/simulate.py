"""The functional simulator: three in-order queues, four token queues, one machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tvmcomp.vta import compute, transfer
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import PAGE, Program
from tvmcomp.vta.isa import (
    Alu,
    Finish,
    Gemm,
    Illegal,
    Instruction,
    Load,
    Stage,
    Store,
    decode_uops,
    stage_of,
)
from tvmcomp.vta.machine import Counters, Fault, Machine, Mode
from tvmcomp.vta.portable import unportable, unportable_uops
from tvmcomp.vta.text import format_instruction
from tvmcomp.vta.tokens import TOKENS, dangling, pops, pushes

__all__ = ["Result", "Simulator", "simulate"]


@dataclass(eq=False)
class Result:
    """What a program did; `error` is None or says which instruction failed and why.

    dram: uint8 [bytes]; insns_left: instructions of the last launch that did not run; tokens_left: per queue.
    """

    dram: np.ndarray
    machine: Machine
    counters: Counters
    executed: int
    insns_left: int
    tokens_left: Mapping[str, int]
    error: str | None

    def to_dict(self) -> dict[str, object]:
        """The JSON form of the statistics."""
        return {
            **self.counters.to_dict(),
            "executed": self.executed,
            "insns_left": self.insns_left,
            "tokens_left": dict(self.tokens_left),
            "error": self.error,
        }


def simulate(
    program: Program,
    config: VtaConfig,
    *,
    mode: Mode = Mode.REFERENCE,
    start: Stage = Stage.COMPUTE,
    fill: int = 0,
) -> Result:
    """Run every launch of `program` on a machine whose memories hold the byte `fill`; the program stays as it is.

    `start` is the queue that runs first; a program that is ordered by its tokens gives the same result for all three.
    """
    simulator = Simulator(config, program.dram.copy(), mode=mode, start=start, fill=fill)
    error = None
    for launch, stream in enumerate(program.launches):
        error = simulator.launch(stream, name=f"launch {launch}")
        if error:
            break
    simulator.dram[:PAGE] = 0
    return Result(
        simulator.dram,
        simulator.machine,
        simulator.counters,
        simulator.executed,
        simulator.insns_left,
        dict(simulator.tokens),
        error,
    )


@dataclass(eq=False)
class Simulator:
    """One device: memories, tokens and counters live on from launch to launch."""

    config: VtaConfig
    dram: np.ndarray
    mode: Mode = Mode.REFERENCE
    start: Stage = Stage.COMPUTE
    fill: int = 0
    counters: Counters = field(default_factory=Counters)
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOKENS, 0))
    executed: int = 0
    insns_left: int = 0
    machine: Machine = field(init=False)

    def __post_init__(self) -> None:
        self.machine = Machine(self.config, self.fill)

    def launch(self, stream: tuple[Instruction, ...], name: str = "launch") -> str | None:
        """Run one stream until nothing moves; None, or what went wrong."""
        queues = {stage: [] for stage in Stage}  # type: dict[Stage, list[int]]
        for index, instruction in enumerate(stream):
            queues[stage_of(instruction)].append(index)
        heads = dict.fromkeys(Stage, 0)
        finished: int | None = None
        order = [Stage((self.start + turn) % len(Stage)) for turn in range(len(Stage))]
        moved = True
        try:
            while moved:
                moved = False
                for stage in order:
                    while heads[stage] < len(queues[stage]):
                        index = queues[stage][heads[stage]]
                        if not self._ready(stream[index]):
                            break
                        if finished is not None:
                            raise _At(index, f"runs after FINISH, instruction {finished}")
                        self._run(stream[index], index)
                        heads[stage] += 1
                        moved = True
                        if isinstance(stream[index], Finish):
                            finished = index
        except _At as fault:
            done = sum(heads.values())
            self.insns_left = len(stream) - done
            text = format_instruction(stream[fault.index])
            return f"{name}, instruction {fault.index} ({text}): {fault.reason}"
        self.insns_left = len(stream) - sum(heads.values())
        waiting = [queues[s][heads[s]] for s in Stage if heads[s] < len(queues[s])]
        return self._verdict(name, stream, waiting, finished)

    def _verdict(
        self, name: str, stream: tuple[Instruction, ...], waiting: list[int], finished: int | None
    ) -> str | None:
        blocked = "; ".join(
            f"instruction {i} ({format_instruction(stream[i])}) waits for {' and '.join(self._lacking(stream[i]))}"
            for i in waiting
        )
        if finished is None and waiting:
            return f"{name}: deadlock: {blocked}"
        if finished is None:
            return f"{name}: no FINISH; end the stream with one"
        if self.mode != Mode.STRICT:
            return None
        if waiting:
            return f"{name}: instructions are left behind FINISH, instruction {finished}: {blocked}"
        left = [f"{count} in {queue}" for queue, count in self.tokens.items() if count]
        return (
            f"{name}: tokens are left: {', '.join(left)}; pop each before FINISH" if left else None
        )

    def _lacking(self, instruction: Instruction) -> list[str]:
        return [f"a token in {queue}" for queue in pops(instruction) if not self.tokens[queue]]

    def _ready(self, instruction: Instruction) -> bool:
        return all(self.tokens[queue] for queue in pops(instruction))

    def _run(self, instruction: Instruction, index: int) -> None:
        try:
            if self.mode == Mode.STRICT:
                self._check_portable(instruction)
            if self.mode == Mode.HARDWARE:
                _check_hardware(instruction)
            for queue in pops(instruction):
                self.tokens[queue] -= 1
            self._execute(instruction)
        except Fault as fault:
            raise _At(index, str(fault)) from None
        for queue in pushes(instruction):
            self.tokens[queue] += 1
        self.executed += 1

    def _execute(self, instruction: Instruction) -> None:
        nowhere = dangling(instruction)
        if nowhere and self.mode != Mode.HARDWARE:
            raise Fault(f"{nowhere[0]} names a queue that does not exist; clear it")
        if isinstance(instruction, Illegal):
            raise Fault(instruction.reason)
        if isinstance(instruction, Load):
            transfer.load(instruction, self.machine, self.dram, self.counters, self.mode)
        elif isinstance(instruction, Store):
            transfer.store(instruction, self.machine, self.dram, self.counters, self.mode)
        elif isinstance(instruction, Gemm):
            compute.gemm(instruction, self.machine, self.counters, self.mode)
        elif isinstance(instruction, Alu):
            compute.alu(instruction, self.machine, self.counters, self.mode)

    def _check_portable(self, instruction: Instruction) -> None:
        reason = unportable(instruction, self.config)
        if reason is None and isinstance(instruction, Gemm | Alu):
            words = self.machine.uop[instruction.uop_bgn : instruction.uop_end]
            reason = unportable_uops(instruction, decode_uops(words, self.config))
        if reason is not None:
            raise Fault(f"not portable: {reason}")


def _check_hardware(instruction: Instruction) -> None:
    """What hangs the RTL."""
    reason = None
    if isinstance(instruction, Load) and instruction.x_size:
        if instruction.memory_type == Memory.ACC_8BIT:
            reason = "ACC_8BIT is not in hardware, which hangs; load int32"
        elif not instruction.y_size:
            reason = "y_size is 0 with x_size > 0, which hangs hardware"
    elif isinstance(instruction, Alu) and instruction.alu_opcode > 3:
        reason = f"alu_opcode {instruction.alu_opcode} is not in hardware, which hangs"
    if (
        reason is None
        and isinstance(instruction, Gemm | Alu)
        and compute.iterations(instruction) <= 0
    ):
        reason = "no iterations: hardware counts down from a wrapped number and runs thousands"
    if reason is not None:
        raise Fault(reason)


class _At(Exception):
    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason
