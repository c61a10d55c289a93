"""The portable subset: what every implementation of the accelerator does alike, and why the rest is not in it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.isa import (
    Alu,
    AluOp,
    Finish,
    Gemm,
    Illegal,
    Instruction,
    Load,
    Store,
)
from tvmcomp.vta.layout import DEPENDENCIES
from tvmcomp.vta.loops import iterations, loops_of, steps
from tvmcomp.vta.tokens import dangling

__all__ = ["unportable", "unportable_uops"]

_SHIFT = 15
_ADDRESS_BITS = 32
# Hardware computes this many iterations at once, none of which sees the others' result.
_IN_FLIGHT = 2


def unportable(instruction: Instruction, config: VtaConfig) -> str | None:
    """Why the instruction by itself does not mean the same everywhere; None if it does."""
    return next(_reasons(instruction, config), None)


def unportable_uops(instruction: Gemm | Alu, uops: np.ndarray, config: VtaConfig) -> str | None:
    """Why it does not with these micro-ops, [n, 3] as `decode_uops` gives them."""
    if isinstance(instruction, Alu) and uops[:, 2].any():
        return "an ALU micro-op with a wgt index: pipelined hardware adds it to src; set it to 0"
    if isinstance(instruction, Alu) and not instruction.use_imm:
        narrow = config.depth(Memory.INP)
        if int(uops[:, 1].max()) >= narrow:
            return f"an ALU micro-op with src {int(uops[:, 1].max())}; some hardware reads it modulo {narrow}"
        before, after = _pairs(instruction, uops, 1)
        if (after[:, 1] == before[:, 0]).any():
            return "an ALU iteration reads what the one before it writes; pipelined hardware forbids it"
    for distance in range(1, _IN_FLIGHT + 1):
        before, after = _pairs(instruction, uops, distance)
        same = before[:, 0] == after[:, 0]
        if same.any() and not instruction.reset:
            return (
                f"iterations {distance} apart write ACC element {before[:, 0][same][0]}; "
                f"hardware needs {_IN_FLIGHT} others between them"
            )
    return None


def _pairs(
    instruction: Gemm | Alu, uops: np.ndarray, distance: int
) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and those `distance` later, both [n, 3]: one pair of every kind there is.

    Their difference depends on the first one's micro-op and on which loops turn over between them alone, so the first
    round of both loops and the end of the inner one have them all.
    """
    per_round, total = instruction.iter_in * len(uops), iterations(instruction)
    ends = np.arange(max(per_round - distance, 0), per_round)
    times = np.unique(np.concatenate([np.arange(len(uops)), ends]))
    times = times[times + distance < total]
    loops = loops_of(instruction)
    return steps(uops, loops, times), steps(uops, loops, times + distance)


def _reasons(instruction: Instruction, config: VtaConfig) -> Iterator[str]:
    if isinstance(instruction, Illegal):
        yield instruction.reason
        return
    if instruction.reserved:
        yield f"bits that belong to no field are set ({instruction.reserved:#x}); clear them"
    nowhere = dangling(instruction)
    if nowhere:
        yield f"{nowhere[0]} names a queue that does not exist; clear it"
    if isinstance(instruction, Load | Store):
        yield from _transfer(instruction, config)
    elif isinstance(instruction, Gemm | Alu):
        yield from _loops(instruction)
    elif isinstance(instruction, Finish) and any(getattr(instruction, f) for f in DEPENDENCIES):
        yield "FINISH carries tokens; let a NOP before it take them"


def _transfer(instruction: Load | Store, config: VtaConfig) -> Iterator[str]:
    if not instruction.x_size:
        return
    memory = instruction.memory_type
    if memory == Memory.ACC_8BIT:
        yield "ACC_8BIT exists in the simulator alone; load int32"
    if not instruction.y_size:
        yield "y_size is 0 with x_size > 0, which hangs hardware; use a NOP with x_size 0"
    padded = any(
        (instruction.y_pad_0, instruction.y_pad_1, instruction.x_pad_0, instruction.x_pad_1)
    )
    if padded and memory != Memory.INP:
        yield "padding of anything but INP is not done alike; write the zeros into DRAM"
    if memory == Memory.UOP and instruction.y_size > 1:
        yield "a UOP load of several rows; some hardware reads the first alone"
    if memory <= Memory.ACC_8BIT:
        unit = config.element_bytes(Memory(memory))
        last = instruction.dram_base + max(instruction.y_size - 1, 0) * instruction.x_stride
        if (last + instruction.x_size) * unit > 1 << _ADDRESS_BITS:
            yield f"DRAM element {last} of {unit} bytes is beyond {_ADDRESS_BITS} bits of address"


def _loops(instruction: Gemm | Alu) -> Iterator[str]:
    if iterations(instruction) <= 0:
        yield (
            f"no iterations: {instruction.iter_out} x {instruction.iter_in} over micro-ops "
            f"{instruction.uop_bgn} to {instruction.uop_end}; hardware runs thousands"
        )
    if not isinstance(instruction, Alu):
        return
    if instruction.alu_opcode >= AluOp.MUL:
        yield f"alu_opcode {instruction.alu_opcode} is not in hardware; use MIN, MAX, ADD or SHR"
    if instruction.alu_opcode == AluOp.SHR:
        if not instruction.use_imm:
            yield "SHR by a tensor shifts right alone in hardware; shift by an immediate"
        elif abs(instruction.imm) > _SHIFT:
            yield f"SHR by {instruction.imm}; the portable range is {-_SHIFT} to {_SHIFT}"
