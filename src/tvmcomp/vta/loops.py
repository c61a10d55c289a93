"""What the two loops around a micro-op list address, without running them."""

from __future__ import annotations

import numpy as np

from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.isa import Alu, AluOp, Gemm

__all__ = ["illegal_loops", "iterations", "loops_of", "operands", "reached", "steps"]


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


def steps(uops: np.ndarray, loops: np.ndarray, times: np.ndarray) -> np.ndarray:
    """int64 [t, 3]: dst, src and wgt of the iterations `times`, int64 [t], counted in the order of execution.

    uops: [n, 3] as `decode_uops` gives them; loops: as `loops_of` gives them.
    """
    inner, which = np.divmod(times, len(uops))
    outer, inner = np.divmod(inner, int(loops[1]))
    factors = loops[2:].astype(np.int64).reshape(3, 2)
    return uops[which] + outer[:, None] * factors[:, 0] + inner[:, None] * factors[:, 1]


def reached(uops: np.ndarray, loops: np.ndarray, column: int) -> np.ndarray:
    """Every index of operand `column` over all iterations, sorted; the caller knows them to be legal."""
    indices = np.unique(uops[:, column])
    for count, factor in zip(loops[:2].tolist(), loops[2 + 2 * column :].tolist(), strict=False):
        if factor:
            indices = np.unique(indices[:, None] + np.arange(count) * factor)
    return indices


def illegal_loops(
    instruction: Gemm | Alu, config: VtaConfig, uops: np.ndarray | None = None
) -> str | None:
    """What does not exist of what the instruction asks for; `uops`, [n, 3], are looked at if given. None: all does."""
    if isinstance(instruction, Alu) and instruction.alu_opcode > AluOp.MUL:
        return f"alu_opcode {instruction.alu_opcode} does not exist; use 0 to {int(AluOp.MUL)}"
    if iterations(instruction) <= 0:
        return None
    depth = config.depth(Memory.UOP)
    if instruction.uop_end > depth:
        return f"micro-ops up to {instruction.uop_end} reach past the UOP depth {depth}"
    if uops is None:
        return None
    for column, (name, memory, factor_out, factor_in) in enumerate(operands(instruction)):
        reach = (instruction.iter_out - 1) * factor_out + (instruction.iter_in - 1) * factor_in
        highest = int(uops[:, column].max()) + reach
        if highest >= config.depth(memory):
            return f"{name} index {highest} reaches past the {memory.name} depth {config.depth(memory)}"
    return None
