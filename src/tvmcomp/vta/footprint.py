"""What an instruction reads and writes: elements on chip, bytes in DRAM."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tvmcomp.vta.bounds import dram_rows, on_chip, padded_shape
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.isa import Alu, Gemm, Instruction, Load, Store
from tvmcomp.vta.loops import iterations, loops_of, operands, reached

__all__ = ["Footprint", "footprint", "overlap_dram"]


@dataclass(frozen=True, eq=False)
class Footprint:
    """On chip, a bit mask of elements per memory; in DRAM, sorted disjoint [begin, end) rows, int64 [n, 2]."""

    reads: dict[Memory, int] = field(default_factory=dict)
    writes: dict[Memory, int] = field(default_factory=dict)
    dram_reads: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    dram_writes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))


def footprint(instruction: Instruction, uops: np.ndarray | None, config: VtaConfig) -> Footprint:
    """`uops`: [n, 3], the micro-ops of a GEMM or ALU; None if unknown, which is every element there is.

    The caller knows that all elements exist.
    """
    if isinstance(instruction, Load) and instruction.x_size:
        memory = on_chip(Memory(instruction.memory_type))
        height, width = padded_shape(instruction)
        written = _run(instruction.sram_base, height * width)
        return Footprint(writes={memory: written}, dram_reads=_rows(instruction, config))
    if isinstance(instruction, Store) and instruction.x_size:
        read = _run(instruction.sram_base, instruction.x_size * instruction.y_size)
        return Footprint(reads={Memory.ACC: read}, dram_writes=_rows(instruction, config))
    if isinstance(instruction, Gemm | Alu) and iterations(instruction) > 0:
        return _loops(instruction, uops, config)
    return Footprint()


def overlap_dram(a: np.ndarray, b: np.ndarray) -> tuple[int, int] | None:
    """Bytes [begin, end) that both lists of rows hold, the first such; None if there are none."""
    if not len(a) or not len(b):
        return None
    first = np.searchsorted(b[:, 1], a[:, 0], side="right")
    for row, index in enumerate(first.tolist()):
        if index < len(b) and b[index, 0] < a[row, 1]:
            return int(max(a[row, 0], b[index, 0])), int(min(a[row, 1], b[index, 1]))
    return None


def _loops(instruction: Gemm | Alu, uops: np.ndarray | None, config: VtaConfig) -> Footprint:
    reads: dict[Memory, int] = {}
    columns = operands(instruction)
    if uops is None:
        masks = [(1 << config.depth(memory)) - 1 for _, memory, _, _ in columns]
    else:
        loops = loops_of(instruction)
        masks = [_mask(reached(uops, loops, column)) for column in range(len(columns))]
    for (_, memory, _, _), mask in zip(columns, masks, strict=True):
        reads[memory] = reads.get(memory, 0) | mask
    # All but a reset read what they write; that a reset does not changes no race.
    return Footprint(reads=reads, writes={Memory.ACC: masks[0]})


def _run(begin: int, count: int) -> int:
    return ((1 << count) - 1) << begin


def _mask(elements: np.ndarray) -> int:
    flags = np.zeros(int(elements.max()) + 1, bool)
    flags[elements] = True
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


def _rows(instruction: Load | Store, config: VtaConfig) -> np.ndarray:
    """Sorted, overlapping or touching rows merged."""
    starts, size = dram_rows(instruction, config)
    starts = np.sort(starts)
    if not len(starts):
        return np.zeros((0, 2), np.int64)
    breaks = np.flatnonzero(starts[1:] > starts[:-1] + size) + 1
    begins = starts[np.concatenate([[0], breaks])]
    ends = starts[np.concatenate([breaks - 1, [len(starts) - 1]])] + size
    return np.stack([begins, ends], axis=1)
