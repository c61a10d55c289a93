"""The functional simulator: three in-order queues, four token queues, one machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tvmcomp.vta import compute, transfer
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import PAGE, Program
from tvmcomp.vta.isa import (
    Alu,
    AluOp,
    Finish,
    Gemm,
    Illegal,
    Instruction,
    Load,
    Stage,
    Store,
    decode_uops,
)
from tvmcomp.vta.loops import iterations
from tvmcomp.vta.machine import Counters, Fault, Machine, Mode
from tvmcomp.vta.portable import unportable, unportable_uops
from tvmcomp.vta.text import format_instruction
from tvmcomp.vta.tokens import TOKENS, dangling, in_order, pops, pushes, queues_of

__all__ = ["LIMIT", "Result", "Simulator", "simulate"]

# GEMM and ALU iterations of a program: minutes, and some hundred ResNet-18s.
LIMIT = 1 << 32


@dataclass(eq=False)
class Result:
    """What a program did; `error` is None or says which instruction failed and why.

    dram: uint8 [bytes]; insns_left: instructions of the launches begun that did not run; tokens_left: per queue.
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
    limit: int = LIMIT,
) -> Result:
    """Run every launch of `program` on a machine whose memories hold the byte `fill`; the program stays as it is.

    `start` is the queue that runs first; a program that is ordered by its tokens gives the same result for all three.
    More than `limit` GEMM and ALU iterations are an error.
    """
    dram = program.dram.copy()
    simulator = Simulator(config, dram, mode=mode, start=start, fill=fill, limit=limit)
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
    limit: int = LIMIT
    counters: Counters = field(default_factory=Counters)
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOKENS, 0))
    executed: int = 0
    insns_left: int = 0
    iterations: int = 0
    machine: Machine = field(init=False)

    def __post_init__(self) -> None:
        self.machine = Machine(self.config, self.fill)

    def launch(self, stream: tuple[Instruction, ...], name: str = "launch") -> str | None:
        """Run one stream until nothing moves; None, or what went wrong."""
        queues = queues_of(stream)
        finished: int | None = None
        try:
            for index in in_order(queues, lambda head: self._ready(stream[head]), self.start):
                if finished is not None:
                    raise _At(index, f"runs after FINISH, instruction {finished}")
                self._run(stream[index], index)
                if isinstance(stream[index], Finish):
                    finished = index
        except _At as fault:
            text = format_instruction(stream[fault.index])
            return f"{name}, instruction {fault.index} ({text}): {fault.reason}"
        finally:
            self.insns_left += sum(map(len, queues.values()))
        return self._verdict(name, stream, queues, finished)

    def _verdict(
        self,
        name: str,
        stream: tuple[Instruction, ...],
        queues: Mapping[Stage, deque[int]],
        finished: int | None,
    ) -> str | None:
        blocked = "; ".join(
            f"instruction {i} ({format_instruction(stream[i])}) waits for {' and '.join(self._lacking(stream[i]))}"
            for i in (queue[0] for queue in queues.values() if queue)
        )
        if finished is None and blocked:
            return f"{name}: deadlock: {blocked}"
        if finished is None:
            return f"{name}: no FINISH; end the stream with one"
        if self.mode != Mode.STRICT:
            return None
        if blocked:
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
        elif isinstance(instruction, Gemm | Alu):
            self._count(iterations(instruction))
        if isinstance(instruction, Gemm):
            compute.gemm(instruction, self.machine, self.counters, self.mode)
        elif isinstance(instruction, Alu):
            compute.alu(instruction, self.machine, self.counters, self.mode)

    def _count(self, amount: int) -> None:
        """Refuse what would run for hours; no instruction is too long for its fields to say so."""
        self.iterations += max(amount, 0)
        if self.iterations > self.limit:
            raise Fault(
                f"{self.iterations} iterations of GEMM and ALU so far, more than the limit of {self.limit}; "
                "shorten the loops or raise the limit"
            )

    def _check_portable(self, instruction: Instruction) -> None:
        reason = unportable(instruction, self.config)
        if reason is None and isinstance(instruction, Gemm | Alu):
            words = self.machine.uop[instruction.uop_bgn : instruction.uop_end]
            uops = decode_uops(words, self.config)
            reason = unportable_uops(instruction, uops, self.config)
        if reason is not None:
            raise Fault(f"not portable: {reason}")


def _check_hardware(instruction: Instruction) -> None:
    """What hangs the RTL."""
    reason = None
    if isinstance(instruction, Load | Store) and instruction.x_size:
        if instruction.memory_type == Memory.ACC_8BIT:
            reason = "ACC_8BIT is not in hardware, which hangs; load int32"
        elif not instruction.y_size:
            reason = "y_size is 0 with x_size > 0, which hangs hardware; use x_size 0"
    elif isinstance(instruction, Alu) and instruction.alu_opcode >= AluOp.MUL:
        reason = f"alu_opcode {instruction.alu_opcode} is not in hardware, which hangs"
    elif isinstance(instruction, Gemm | Alu) and iterations(instruction) <= 0:
        reason = "no iterations: hardware counts down from a wrapped number and runs thousands"
    if reason is not None:
        raise Fault(reason)


class _At(Exception):
    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason
