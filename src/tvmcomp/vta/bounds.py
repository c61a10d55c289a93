"""What a LOAD or STORE covers, on chip and in DRAM, and whether what an instruction asks for exists."""

from __future__ import annotations

import numpy as np

from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import PAGE
from tvmcomp.vta.isa import Alu, Gemm, Illegal, Instruction, Load, Store
from tvmcomp.vta.loops import illegal_loops

__all__ = ["beyond", "dram_rows", "illegal", "malformed", "on_chip", "padded_shape"]

_ADDRESS_SPACE = 1 << 32


def on_chip(memory: Memory) -> Memory:
    """The memory that holds it: ACC for ACC_8BIT, and for OUT, which has no place of its own."""
    return Memory.ACC if memory in (Memory.ACC_8BIT, Memory.OUT) else memory


def padded_shape(instruction: Load | Store) -> tuple[int, int]:
    """Rows and columns of SRAM elements an instruction covers."""
    height = instruction.y_pad_0 + instruction.y_size + instruction.y_pad_1
    width = instruction.x_pad_0 + instruction.x_size + instruction.x_pad_1
    return height, width


def dram_rows(instruction: Load | Store, config: VtaConfig) -> tuple[np.ndarray, int]:
    """First byte of every row in DRAM, int64 [y_size], and the bytes of a row."""
    memory = Memory(instruction.memory_type)
    # The base is multiplied in 32 bits; ACC_8BIT by ACC's size first, so it wraps four times earlier.
    narrow = memory == Memory.ACC_8BIT
    unit = config.element_bytes(Memory.ACC if narrow else memory)
    base = instruction.dram_base * unit % _ADDRESS_SPACE // (4 if narrow else 1)
    element = config.element_bytes(memory)
    rows = np.arange(instruction.y_size, dtype=np.int64) * (instruction.x_stride * element)
    return base + rows, instruction.x_size * element


def malformed(instruction: Load | Store) -> str | None:
    """Why there is no such transfer, wherever it goes; None if there is. One of x_size 0 is legal whatever it says."""
    code = instruction.memory_type
    if not instruction.x_size:
        return None
    if isinstance(instruction, Load):
        if code == Memory.OUT:
            return "LOAD of memory_type 4 (OUT); only STORE takes it"
        if code > Memory.ACC_8BIT:
            return f"memory_type {code} does not exist; use 0 to {int(Memory.ACC_8BIT)}"
        return None
    if code != Memory.OUT:
        return f"STORE of memory_type {code}; only 4 (OUT) can be stored"
    if any((instruction.y_pad_0, instruction.y_pad_1, instruction.x_pad_0, instruction.x_pad_1)):
        return "STORE with padding; set its four pads to 0"
    return None


def beyond(instruction: Load | Store, config: VtaConfig, dram_bytes: int) -> str | None:
    """Which of the elements of a transfer that is not malformed does not exist; None if all do."""
    if not instruction.x_size:
        return None
    memory = on_chip(Memory(instruction.memory_type))
    height, width = padded_shape(instruction)
    begin, depth = instruction.sram_base, config.depth(memory)
    end = begin + height * width
    if end > depth:
        return f"{memory.name} elements {begin} to {end - 1} reach past its depth {depth}"
    starts, size = dram_rows(instruction, config)
    if not len(starts):
        return None
    low, high = int(starts.min()), int(starts.max()) + size
    if low < PAGE:
        return f"DRAM address {low:#x} is in page 0, which is not mapped"
    if high > dram_bytes:
        return f"DRAM bytes up to {high:#x} are read or written; the image ends at {dram_bytes:#x}"
    return None


def illegal(instruction: Instruction, config: VtaConfig, dram_bytes: int) -> str | None:
    """Why no machine runs the instruction, whatever its micro-ops are; None if one does."""
    if isinstance(instruction, Illegal):
        return instruction.reason
    if isinstance(instruction, Load | Store):
        return malformed(instruction) or beyond(instruction, config, dram_bytes)
    return illegal_loops(instruction, config) if isinstance(instruction, Gemm | Alu) else None
