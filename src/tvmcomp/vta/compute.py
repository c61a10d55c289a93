"""GEMM and ALU: indices from the micro-op loops, checked, then one kernel call."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tvmcomp.vta.config import VtaConfig
from tvmcomp.vta.isa import Alu, AluOp, Gemm, decode_uops
from tvmcomp.vta.kernels import LARGEST_SHIFT, kernels
from tvmcomp.vta.loops import illegal_loops, iterations, loops_of, operands, reached, steps
from tvmcomp.vta.machine import Counters, Fault, Machine, Mode

__all__ = ["alu", "gemm"]

_CHUNK = 1 << 16
# One round of each loop, no factors.
_ONCE = np.array([1, 1, 0, 0, 0, 0, 0, 0], np.int32)


def gemm(instruction: Gemm, machine: Machine, counters: Counters, mode: Mode) -> None:
    """ACC[dst] += INP[src] . WGT[wgt]^T, or 0 with `reset`. Raises Fault."""
    if not instruction.reset:
        counters.add("gemm_counter", iterations(instruction))
    flat = [memory.reshape(-1) for memory in (machine.acc, machine.inp, machine.wgt)]
    for uops, loops in _work(instruction, machine, mode):
        if instruction.reset:
            written = reached(uops, loops, 0)
            machine.acc[written] = 0
            machine.stale[written] = True
            continue
        kernels(machine.config)["gemm"](*flat, uops.reshape(-1), loops)
        if mode != Mode.REFERENCE:
            _copy_out(machine, reached(uops, loops, 0))


def alu(instruction: Alu, machine: Machine, counters: Counters, mode: Mode) -> None:
    """ACC[dst] = op(ACC[dst], imm or ACC[src]), one iteration after the other. Raises Fault."""
    counters.add("alu_counter", iterations(instruction))
    for uops, loops in _work(instruction, machine, mode):
        op = AluOp(instruction.alu_opcode)
        name = f"{op.name.lower()}_{'imm' if instruction.use_imm else 'acc'}"
        # The RTL takes the direction of every shift from the immediate.
        if mode == Mode.HARDWARE and name == "shr_acc":
            name = "shr_both"
        immediate = () if name.endswith("_acc") else (instruction.imm,)
        kernel = kernels(machine.config)[name]
        beyond = kernel(machine.acc.reshape(-1), uops.reshape(-1), loops, *immediate)
        if beyond and mode != Mode.HARDWARE:
            raise Fault(f"SHR by more than {LARGEST_SHIFT} is undefined; shift by less")
        if mode != Mode.REFERENCE:
            _copy_out(machine, reached(uops, loops, 0))


def _work(
    instruction: Gemm | Alu, machine: Machine, mode: Mode
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Micro-ops, int32 [n, 3], and loops, int32 [8], with every index inside its memory; none if there is no work."""
    illegal = illegal_loops(instruction, machine.config)
    if illegal is not None:
        raise Fault(illegal)
    if iterations(instruction) <= 0:
        return
    words = machine.uop[instruction.uop_bgn : instruction.uop_end]
    uops = decode_uops(words, machine.config)
    overflow = illegal_loops(instruction, machine.config, uops)
    if overflow is None:
        yield np.ascontiguousarray(uops, np.int32), loops_of(instruction)
    elif mode == Mode.HARDWARE:
        for every in _wrapped(instruction, uops, machine.config):
            yield np.ascontiguousarray(every, np.int32), _ONCE
    else:
        raise Fault(overflow)


def _wrapped(instruction: Gemm | Alu, uops: np.ndarray, config: VtaConfig) -> Iterator[np.ndarray]:
    """The iterations written out, [n, 3], their indices modulo the depth, as the RTL's counters are."""
    total, loops = iterations(instruction), loops_of(instruction)
    for begin in range(0, total, _CHUNK):
        every = steps(uops, loops, np.arange(begin, min(begin + _CHUNK, total)))
        for column, (_, memory, _, _) in enumerate(operands(instruction)):
            every[:, column] %= config.depth(memory)
        yield every


def _copy_out(machine: Machine, written: np.ndarray) -> None:
    machine.out[written] = machine.acc[written].astype(np.int8)
    machine.stale[written] = False
