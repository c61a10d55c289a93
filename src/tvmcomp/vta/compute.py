"""GEMM and ALU: indices from the micro-op loops, checked, then one kernel call."""

from __future__ import annotations

import numpy as np

from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.isa import Alu, AluOp, Gemm, decode_uops
from tvmcomp.vta.kernels import LARGEST_SHIFT, kernels
from tvmcomp.vta.machine import Counters, Fault, Machine, Mode

__all__ = ["alu", "expand", "gemm", "iterations", "loops_of", "operands"]


def iterations(instruction: Gemm | Alu) -> int:
    """iter_out * iter_in * micro-ops; what the counters add, negative for a range that ends before it begins."""
    return instruction.iter_out * instruction.iter_in * (instruction.uop_end - instruction.uop_bgn)


def operands(instruction: Gemm | Alu) -> tuple[tuple[str, Memory, int, int], ...]:
    """(field of the micro-op, memory it indexes, factor_out, factor_in) of each index the instruction reads."""
    dst = ("dst", Memory.ACC, instruction.dst_factor_out, instruction.dst_factor_in)
    if isinstance(instruction, Gemm) and instruction.reset:
        return (dst,)
    if isinstance(instruction, Alu):
        src = ("src", Memory.ACC, instruction.src_factor_out, instruction.src_factor_in)
        return (dst,) if instruction.use_imm else (dst, src)
    return (
        dst,
        ("src", Memory.INP, instruction.src_factor_out, instruction.src_factor_in),
        ("wgt", Memory.WGT, instruction.wgt_factor_out, instruction.wgt_factor_in),
    )


def loops_of(instruction: Gemm | Alu) -> np.ndarray:
    """int32 [8]: iter_out, iter_in, then the factors of dst, src and wgt, each out and in; 0 for what is not read."""
    loops = np.zeros(8, np.int32)
    loops[:2] = instruction.iter_out, instruction.iter_in
    for column, (_, _, factor_out, factor_in) in enumerate(operands(instruction)):
        loops[2 + 2 * column : 4 + 2 * column] = factor_out, factor_in
    return loops


def expand(uops: np.ndarray, loops: np.ndarray) -> np.ndarray:
    """int64 [iterations, 3]: dst, src and wgt of every iteration in the order of execution.

    uops: [n, 3] as `decode_uops` gives them; loops: as `loops_of` gives them.
    """
    out, inner = (np.arange(count, dtype=np.int64) for count in loops[:2].tolist())
    factors = loops[2:].astype(np.int64).reshape(3, 2)
    steps = out[:, None, None] * factors[:, 0] + inner[None, :, None] * factors[:, 1]
    return (steps[:, :, None, :] + uops[None, None]).reshape(-1, 3)


def gemm(instruction: Gemm, machine: Machine, counters: Counters, mode: Mode) -> None:
    """ACC[dst] += INP[src] . WGT[wgt]^T, or 0 with `reset`."""
    if not instruction.reset:
        counters.add("gemm_counter", iterations(instruction))
    prepared = _prepare(instruction, machine, mode)
    if prepared is None:
        return
    uops, loops = prepared
    if instruction.reset:
        written = np.unique(_written(uops, loops))
        machine.acc[written] = 0
        machine.stale[written] = True
        return
    flat = (memory.reshape(-1) for memory in (machine.acc, machine.inp, machine.wgt))
    kernels(machine.config)["gemm"](*flat, uops.reshape(-1), loops)
    if mode != Mode.REFERENCE:
        _copy_out(machine, _written(uops, loops))


def alu(instruction: Alu, machine: Machine, counters: Counters, mode: Mode) -> None:
    """ACC[dst] = op(ACC[dst], imm or ACC[src]), one iteration after the other."""
    counters.add("alu_counter", iterations(instruction))
    if instruction.alu_opcode > AluOp.MUL:
        raise Fault(
            f"alu_opcode {instruction.alu_opcode} does not exist; use 0 to {int(AluOp.MUL)}"
        )
    prepared = _prepare(instruction, machine, mode)
    if prepared is None:
        return
    uops, loops = prepared
    op = AluOp(instruction.alu_opcode)
    if mode == Mode.HARDWARE and op == AluOp.SHR and not instruction.use_imm:
        _shift_as_hardware(machine.acc, expand(uops, loops), left=instruction.imm < 0)
    else:
        name = f"{op.name.lower()}_{'imm' if instruction.use_imm else 'acc'}"
        immediate = [instruction.imm] if instruction.use_imm else []
        beyond = kernels(machine.config)[name](
            machine.acc.reshape(-1), uops.reshape(-1), loops, *immediate
        )
        if beyond and mode != Mode.HARDWARE:
            raise Fault(f"SHR by more than {LARGEST_SHIFT} is undefined; shift by less")
    if mode != Mode.REFERENCE:
        _copy_out(machine, _written(uops, loops))


def _prepare(
    instruction: Gemm | Alu, machine: Machine, mode: Mode
) -> tuple[np.ndarray, np.ndarray] | None:
    """Micro-ops, int32 [n, 3], and loops, int32 [8], with every index inside its memory; None if there is no work."""
    if iterations(instruction) <= 0:
        return None
    depth = machine.config.depth(Memory.UOP)
    if instruction.uop_end > depth:
        raise Fault(f"micro-ops up to {instruction.uop_end} reach past the UOP depth {depth}")
    words = machine.uop[instruction.uop_bgn : instruction.uop_end]
    uops = decode_uops(words, machine.config)
    problem = _overflow(instruction, uops, machine.config)
    if problem and mode == Mode.HARDWARE:
        return _wrapped(instruction, uops, machine.config)
    if problem:
        raise Fault(problem)
    return np.ascontiguousarray(uops, np.int32), loops_of(instruction)


def _overflow(instruction: Gemm | Alu, uops: np.ndarray, config: VtaConfig) -> str | None:
    for column, (name, memory, factor_out, factor_in) in enumerate(operands(instruction)):
        reach = (instruction.iter_out - 1) * factor_out + (instruction.iter_in - 1) * factor_in
        highest = int(uops[:, column].max()) + reach
        if highest >= config.depth(memory):
            return f"{name} index {highest} reaches past the {memory.name} depth {config.depth(memory)}"
    return None


def _wrapped(
    instruction: Gemm | Alu, uops: np.ndarray, config: VtaConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The iterations written out, their indices modulo the depth, as the RTL's counters are."""
    every = expand(uops, loops_of(instruction))
    for column, (_, memory, _, _) in enumerate(operands(instruction)):
        every[:, column] %= config.depth(memory)
    return every.astype(np.int32), np.array([1, 1, 0, 0, 0, 0, 0, 0], np.int32)


def _written(uops: np.ndarray, loops: np.ndarray) -> np.ndarray:
    iter_out, iter_in, factor_out, factor_in = (int(n) for n in loops[:4])
    steps = np.arange(iter_out)[:, None] * factor_out + np.arange(iter_in) * factor_in
    return (np.unique(steps)[:, None] + np.unique(uops[:, 0])).reshape(-1)


def _copy_out(machine: Machine, written: np.ndarray) -> None:
    machine.out[written] = machine.acc[written].astype(np.int8)
    machine.stale[written] = False


def _shift_as_hardware(acc: np.ndarray, steps: np.ndarray, *, left: bool) -> None:
    """The amount is the low five bits, the direction the sign of the unused immediate."""
    for dst, src, _ in steps.tolist():
        amount = acc[src] & LARGEST_SHIFT
        acc[dst] = acc[dst] << amount if left else acc[dst] >> amount
