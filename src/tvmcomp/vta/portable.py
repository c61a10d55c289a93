"""The portable subset: what every implementation of the accelerator does alike, and why the rest is not in it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tvmcomp.vta.compute import expand, iterations, loops_of
from tvmcomp.vta.config import Memory, VtaConfig
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
    stage_of,
)

__all__ = ["unportable", "unportable_uops"]

_SHIFT = 15
_ADDRESS_BITS = 32
# Hardware computes this many iterations at once, none of which sees the others' result.
_IN_FLIGHT = 2


def unportable(instruction: Instruction, config: VtaConfig) -> str | None:
    """Why the instruction by itself does not mean the same everywhere; None if it does."""
    return next(_reasons(instruction, config), None)


def unportable_uops(instruction: Gemm | Alu, uops: np.ndarray) -> str | None:
    """Why it does not with these micro-ops, [n, 3] as `decode_uops` gives them."""
    steps = expand(uops, loops_of(instruction))
    if isinstance(instruction, Alu):
        if uops[:, 2].any():
            return (
                "an ALU micro-op with a wgt index: pipelined hardware adds it to src; set it to 0"
            )
        read = steps[:, :1] if instruction.use_imm else steps[:, :2]
        if (read[1:] == steps[:-1, :1]).any():
            return "an ALU iteration reads what the one before it writes; pipelined hardware forbids it"
        return None
    for distance in range(1, _IN_FLIGHT + 1):
        same = steps[distance:, 0] == steps[:-distance, 0]
        if same.any() and not instruction.reset:
            return (
                f"GEMM iterations {distance} apart add to ACC element "
                f"{steps[:-distance, 0][same][0]}; hardware needs {_IN_FLIGHT} others between them"
            )
    return None


def _reasons(instruction: Instruction, config: VtaConfig) -> Iterator[str]:
    if isinstance(instruction, Illegal):
        yield instruction.reason
        return
    if instruction.reserved:
        yield f"bits that belong to no field are set ({instruction.reserved:#x}); clear them"
    stage = stage_of(instruction)
    if stage == Stage.LOAD and (instruction.pop_prev or instruction.push_prev):
        yield "the load queue has no stage before it; clear pop_prev and push_prev"
    if stage == Stage.STORE and (instruction.pop_next or instruction.push_next):
        yield "the store queue has no stage behind it; clear pop_next and push_next"
    if isinstance(instruction, Load | Store):
        yield from _transfer(instruction, config)
    elif isinstance(instruction, Gemm | Alu):
        yield from _loops(instruction)
    elif isinstance(instruction, Finish) and any(
        (instruction.pop_prev, instruction.pop_next, instruction.push_prev, instruction.push_next)
    ):
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
