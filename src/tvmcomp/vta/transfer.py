"""LOAD and STORE."""

from __future__ import annotations

import numpy as np

from tvmcomp.vta.bounds import beyond, dram_rows, malformed, on_chip, padded_shape
from tvmcomp.vta.config import Memory
from tvmcomp.vta.isa import Load, Store
from tvmcomp.vta.machine import Counters, Fault, Machine, Mode

__all__ = ["load", "store"]


def load(
    instruction: Load, machine: Machine, dram: np.ndarray, counters: Counters, mode: Mode
) -> None:
    """Copy rows into SRAM, dense, with zeros around them. Raises Fault."""
    if not instruction.x_size:
        return
    _refuse(malformed(instruction))
    config, memory = machine.config, Memory(instruction.memory_type)
    target = on_chip(memory)
    size = instruction.x_size * instruction.y_size * config.element_bytes(target)
    counters.add(f"{target.name.lower()}_load_nbytes", size)
    _refuse(beyond(instruction, config, dram.size))
    flat = _padded(instruction, machine, dram)
    begin = instruction.sram_base
    if mode == Mode.HARDWARE and memory == Memory.WGT:
        # The RTL never writes the zeros behind the last weight.
        _, width = padded_shape(instruction)
        flat = flat[: len(flat) - instruction.y_pad_1 * width - instruction.x_pad_1]
    end = begin + len(flat)
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
    """Copy the low byte of every accumulator to rows in DRAM. Raises Fault."""
    if not instruction.x_size:
        return
    _refuse(malformed(instruction))
    config, count = machine.config, instruction.x_size * instruction.y_size
    counters.add("out_store_nbytes", count * config.element_bytes(Memory.OUT))
    _refuse(beyond(instruction, config, dram.size))
    begin, end = instruction.sram_base, instruction.sram_base + count
    if mode == Mode.STRICT and machine.stale[begin:end].any():
        tile = begin + int(np.argmax(machine.stale[begin:end]))
        raise Fault(
            f"STORE of ACC element {tile}, which was last loaded or reset: hardware stores an old copy; "
            "end each stored tile with a GEMM or ALU write"
        )
    copied = mode == Mode.HARDWARE
    tiles = machine.out[begin:end] if copied else machine.acc[begin:end].view(np.int8)[:, ::4]
    starts, size = dram_rows(instruction, config)
    data = np.ascontiguousarray(tiles).view(np.uint8).reshape(instruction.y_size, size)
    for start, row in zip(starts.tolist(), data, strict=True):
        dram[start : start + size] = row


def _padded(instruction: Load, machine: Machine, dram: np.ndarray) -> np.ndarray:
    """uint8 [elements, bytes of one in DRAM]: the rows, and the zeros around them."""
    element = machine.config.element_bytes(Memory(instruction.memory_type))
    height, width = padded_shape(instruction)
    tiles = np.zeros((height, width, element), np.uint8)
    starts, size = dram_rows(instruction, machine.config)
    left, right = instruction.x_pad_0, instruction.x_pad_0 + instruction.x_size
    for row, start in enumerate(starts.tolist(), instruction.y_pad_0):
        tiles[row, left:right] = dram[start : start + size].reshape(-1, element)
    return tiles.reshape(height * width, element)


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise Fault(reason)
