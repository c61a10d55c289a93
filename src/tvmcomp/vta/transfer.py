"""LOAD and STORE."""

from __future__ import annotations

import numpy as np

from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import PAGE
from tvmcomp.vta.isa import Load, Store
from tvmcomp.vta.machine import Counters, Fault, Machine, Mode

__all__ = ["dram_rows", "load", "padded_shape", "store"]

_ADDRESS_SPACE = 1 << 32


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


def load(
    instruction: Load, machine: Machine, dram: np.ndarray, counters: Counters, mode: Mode
) -> None:
    """Copy rows into SRAM, dense, with zeros around them."""
    if not instruction.x_size:
        return
    memory = _memory_type(instruction.memory_type)
    if memory == Memory.OUT:
        raise Fault("LOAD of memory_type 4 (OUT); only STORE takes it")
    config = machine.config
    on_chip = Memory.ACC if memory == Memory.ACC_8BIT else memory
    unit = config.element_bytes(on_chip)
    name = f"{on_chip.name.lower()}_load_nbytes"
    counters.add(name, instruction.x_size * instruction.y_size * unit)
    height, width = padded_shape(instruction)
    begin, end = instruction.sram_base, instruction.sram_base + height * width
    _check_sram(on_chip, begin, end, config)
    tiles = np.zeros((height, width, config.element_bytes(memory)), np.uint8)
    top, left = instruction.y_pad_0, instruction.x_pad_0
    rows = _gather(instruction, dram, config)
    inside = (slice(top, top + instruction.y_size), slice(left, left + instruction.x_size))
    tiles[inside] = rows.reshape(instruction.y_size, instruction.x_size, tiles.shape[2])
    flat = tiles.reshape(height * width, tiles.shape[2])
    if mode == Mode.HARDWARE and memory == Memory.WGT and instruction.y_size:
        # The RTL never writes the zeros behind the last weight.
        end -= instruction.y_pad_1 * width + instruction.x_pad_1
        flat = flat[: end - begin]
    if memory == Memory.UOP:
        machine.uop[begin:end] = flat.view(np.uint32).reshape(-1)
    elif memory == Memory.WGT:
        block = config.block
        machine.wgt[begin:end] = flat.view(np.int8).reshape(-1, block, block).transpose(0, 2, 1)
    elif memory == Memory.INP:
        machine.inp[begin:end] = flat.view(np.int8)
    else:
        machine.acc[begin:end] = flat.view(np.int32 if memory == Memory.ACC else np.int8)
        machine.stale[begin:end] = True


def store(
    instruction: Store, machine: Machine, dram: np.ndarray, counters: Counters, mode: Mode
) -> None:
    """Copy the low byte of every accumulator to rows in DRAM."""
    if not instruction.x_size:
        return
    if instruction.memory_type != Memory.OUT:
        raise Fault(f"STORE of memory_type {instruction.memory_type}; only 4 (OUT) can be stored")
    config = machine.config
    if any((instruction.y_pad_0, instruction.y_pad_1, instruction.x_pad_0, instruction.x_pad_1)):
        raise Fault("STORE with padding; set its four pads to 0")
    count = instruction.x_size * instruction.y_size
    counters.add("out_store_nbytes", count * config.element_bytes(Memory.OUT))
    begin, end = instruction.sram_base, instruction.sram_base + count
    _check_sram(Memory.ACC, begin, end, config)
    if mode == Mode.STRICT and machine.stale[begin:end].any():
        tile = begin + int(np.argmax(machine.stale[begin:end]))
        raise Fault(
            f"STORE of ACC element {tile}, which was last loaded or reset: hardware stores an old copy; "
            "end each stored tile with a GEMM or ALU write"
        )
    copied = mode == Mode.HARDWARE
    tiles = machine.out[begin:end] if copied else machine.acc[begin:end].view(np.int8)[:, ::4]
    starts, size = dram_rows(instruction, config)
    _check_dram(starts, size, dram)
    data = np.ascontiguousarray(tiles).view(np.uint8).reshape(instruction.y_size, -1)
    for start, row in zip(starts.tolist(), data, strict=True):
        dram[start : start + size] = row


def _memory_type(code: int) -> Memory:
    if code > Memory.ACC_8BIT:
        raise Fault(f"memory_type {code} does not exist; use 0 to {int(Memory.ACC_8BIT)}")
    return Memory(code)


def _gather(instruction: Load, dram: np.ndarray, config: VtaConfig) -> np.ndarray:
    starts, size = dram_rows(instruction, config)
    _check_dram(starts, size, dram)
    rows = np.empty((len(starts), size), np.uint8)
    for index, start in enumerate(starts.tolist()):
        rows[index] = dram[start : start + size]
    return rows


def _check_sram(memory: Memory, begin: int, end: int, config: VtaConfig) -> None:
    depth = config.depth(memory)
    if end > depth:
        raise Fault(f"{memory.name} elements {begin} to {end - 1} reach past its depth {depth}")


def _check_dram(starts: np.ndarray, size: int, dram: np.ndarray) -> None:
    if not len(starts):
        return
    low, high = int(starts.min()), int(starts.max()) + size
    if low < PAGE:
        raise Fault(f"DRAM address {low:#x} is in page 0, which is not mapped")
    if high > dram.size:
        raise Fault(
            f"DRAM bytes up to {high:#x} are read or written; the image ends at {dram.size:#x}"
        )
