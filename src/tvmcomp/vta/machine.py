"""The accelerator's state: on-chip memories, the profiler's counters, and faults."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum

import numpy as np

from tvmcomp.vta.config import Memory, VtaConfig

__all__ = ["Counters", "Fault", "Machine", "Mode"]

_ALIGNMENT = 64


class Mode(Enum):
    """Whose behaviour is simulated.

    REFERENCE: the original functional simulator. HARDWARE: the un-pipelined RTL, with its narrow copy of the
    accumulators, its shifts, and indices that wrap around. STRICT: REFERENCE, and an error for everything that is
    not the same everywhere.
    """

    REFERENCE = "reference"
    STRICT = "strict"
    HARDWARE = "hardware"


class Fault(Exception):
    """What an instruction did wrong; whoever runs it adds which one it was."""


@dataclass
class Counters:
    """The profiler of the original simulator; bytes on chip, padding not counted, and loop iterations."""

    inp_load_nbytes: int = 0
    wgt_load_nbytes: int = 0
    acc_load_nbytes: int = 0
    uop_load_nbytes: int = 0
    out_store_nbytes: int = 0
    gemm_counter: int = 0
    alu_counter: int = 0

    def add(self, name: str, amount: int) -> None:
        """Count; the counters have 64 bits and wrap around."""
        setattr(self, name, (getattr(self, name) + amount) % (1 << 64))

    def to_dict(self) -> dict[str, int]:
        """Name -> value."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(eq=False)
class Machine:
    """On-chip memories; they keep their contents from launch to launch.

    uop: uint32 [depth]; inp: int8 [depth, B*K]; acc: int32 [depth, B*K]; wgt: int8 [depth, K_in, K_out], transposed
    for the GEMM kernel. Kept in the modes that need them: out, int8 [depth, B*K], the copy STORE reads in hardware;
    stale, bool [depth], the accumulators that copy does not hold.
    """

    config: VtaConfig
    fill: int = 0
    uop: np.ndarray = field(init=False)
    inp: np.ndarray = field(init=False)
    wgt: np.ndarray = field(init=False)
    acc: np.ndarray = field(init=False)
    out: np.ndarray = field(init=False)
    stale: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        config, tile = self.config, self.config.batch * self.config.block
        self.uop = self._memory(Memory.UOP, np.uint32, ())
        self.inp = self._memory(Memory.INP, np.int8, (tile,))
        self.wgt = self._memory(Memory.WGT, np.int8, (config.block, config.block))
        self.acc = self._memory(Memory.ACC, np.int32, (tile,))
        self.out = self._memory(Memory.OUT, np.int8, (tile,))
        self.stale = np.ones(config.depth(Memory.ACC), bool)

    def _memory(self, memory: Memory, dtype: type, tile: tuple[int, ...]) -> np.ndarray:
        size = self.config.buffer_bytes(memory)
        block = np.full(size + _ALIGNMENT, self.fill, np.uint8)
        start = -block.ctypes.data % _ALIGNMENT
        return block[start : start + size].view(dtype).reshape(-1, *tile)

    def dump(self) -> bytes:
        """uop, wgt, inp and acc one after the other, each as in DRAM."""
        weights = np.ascontiguousarray(self.wgt.transpose(0, 2, 1))
        return b"".join(m.tobytes() for m in (self.uop, weights, self.inp, self.acc))
