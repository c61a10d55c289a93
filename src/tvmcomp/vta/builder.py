"""Tiled programs by hand: memory in DRAM, micro-ops, instructions, and the tokens between stages.

b = Builder(config)
x, w, y = b.data(inputs), b.data(weights), b.space(256)
one = b.uops([Uop(0, 0, 0)])
b.gemm(one, Loop(16, dst=1), reset=True)          # 16 accumulators to zero
b.load(Memory.INP, x, cols=16)
b.load(Memory.WGT, w, cols=1)
b.push(Stage.LOAD, Stage.COMPUTE)                 # the load is done ...
b.pop(Stage.LOAD, Stage.COMPUTE)                  # ... before the next compute instruction begins
b.gemm(one, Loop(16, dst=1, src=1))
b.push(Stage.COMPUTE, Stage.STORE); b.pop(Stage.COMPUTE, Stage.STORE)
b.store(y, cols=16)
program = b.build()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvmcomp.errors import VtaError
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import PAGE, Program
from tvmcomp.vta.isa import (
    Alu,
    AluOp,
    Finish,
    Gemm,
    Instruction,
    Load,
    Stage,
    Store,
    Uop,
    encode,
    encode_uops,
    stage_of,
)
from tvmcomp.vta.tokens import TOKENS

__all__ = ["Builder", "Loop", "Uops"]

# (from, to) -> flag of the stage that puts a token in, flag of the one that takes it out.
_FLAGS = {(q.source, q.to): (q.push, q.pop) for q in TOKENS.values()}
_NOPS: dict[Stage, Instruction] = {
    Stage.LOAD: Load(memory_type=Memory.INP),
    Stage.COMPUTE: Load(memory_type=Memory.UOP),
    Stage.STORE: Store(memory_type=Memory.OUT),
}


@dataclass(frozen=True)
class Loop:
    """`extent` rounds; each adds these factors to the micro-ops' indices."""

    extent: int = 1
    dst: int = 0
    src: int = 0
    wgt: int = 0


@dataclass(frozen=True, eq=False)
class Uops:
    """A list of micro-ops: elements [begin, end) of the UOP memory once it is loaded, from DRAM address `address`."""

    begin: int
    end: int
    address: int


class Builder:
    """Collects one launch; every method appends in program order. Raises VtaError where a field overflows."""

    def __init__(self, config: VtaConfig) -> None:
        self.config = config
        self._parts: list[np.ndarray] = [np.zeros(PAGE, np.uint8)]
        self._stream: list[Instruction] = []
        self._last: dict[Stage, int] = {}
        self._pops: dict[Stage, dict[str, int]] = {stage: {} for stage in Stage}
        self._loaded: set[Uops] = set()
        self._uops = 0
        self._bytes = PAGE
        self._built = False

    def data(self, array: np.ndarray) -> int:
        """Put an array's bytes into DRAM; the address, which is page aligned."""
        return self._place(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def space(self, size: int) -> int:
        """Reserve `size` zero bytes of DRAM; the address."""
        return self._place(np.zeros(size, np.uint8))

    def uops(self, uops: Sequence[Uop]) -> Uops:
        """A micro-op list of its own place on chip; it is loaded before the first instruction that runs it."""
        begin, end = self._uops, self._uops + len(uops)
        if not uops or end > self.config.depth(Memory.UOP):
            raise VtaError(
                f"{len(uops)} micro-ops after {begin} others; the UOP memory holds "
                f"{self.config.depth(Memory.UOP)} and a list at least one"
            )
        self._uops = end
        return Uops(begin, end, self.data(encode_uops(uops, self.config)))

    def load(
        self,
        memory: Memory,
        address: int,
        *,
        sram: int = 0,
        rows: int = 1,
        cols: int = 1,
        stride: int | None = None,
        pad: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> None:
        """DRAM -> SRAM element `sram` on; `address` in bytes, all else in elements; pad: top, bottom, left, right."""
        top, bottom, left, right = pad
        self._append(
            Load(
                memory_type=memory,
                sram_base=sram,
                dram_base=self._element(memory, address),
                y_size=rows,
                x_size=cols,
                x_stride=cols if stride is None else stride,
                y_pad_0=top,
                y_pad_1=bottom,
                x_pad_0=left,
                x_pad_1=right,
            )
        )

    def store(
        self,
        address: int,
        *,
        sram: int = 0,
        rows: int = 1,
        cols: int = 1,
        stride: int | None = None,
    ) -> None:
        """Low bytes of the accumulators from element `sram` on -> DRAM."""
        self._append(
            Store(
                memory_type=Memory.OUT,
                sram_base=sram,
                dram_base=self._element(Memory.OUT, address),
                y_size=rows,
                x_size=cols,
                x_stride=cols if stride is None else stride,
            )
        )

    def gemm(
        self, uops: Uops, outer: Loop = Loop(), inner: Loop = Loop(), *, reset: bool = False
    ) -> None:
        """ACC[dst] += INP[src] . WGT[wgt]^T over two loops around the micro-ops; with `reset`, ACC[dst] = 0."""
        self._require(uops)
        factors = {"wgt_factor_out": outer.wgt, "wgt_factor_in": inner.wgt}
        self._append(Gemm(reset=int(reset), **_loops(uops, outer, inner), **factors))

    def alu(
        self,
        op: AluOp,
        uops: Uops,
        outer: Loop = Loop(),
        inner: Loop = Loop(),
        *,
        imm: int | None = None,
    ) -> None:
        """ACC[dst] = op(ACC[dst], imm), or with ACC[src] where there is no `imm`."""
        self._require(uops)
        immediate = {} if imm is None else {"use_imm": 1, "imm": imm}
        self._append(Alu(alu_opcode=op, **_loops(uops, outer, inner), **immediate))

    def push(self, source: Stage, to: Stage) -> None:
        """What `source` has been given so far is done before `to` gets this token."""
        flag, _ = self._flags(source, to)
        last = self._last.get(source)
        if last is None or self._pops[source] or getattr(self._stream[last], flag):
            self._append(_NOPS[source])
            last = self._last[source]
        self._stream[last] = _with_flags(self._stream[last], {flag: 1})

    def pop(self, source: Stage, to: Stage) -> None:
        """The next instruction of `to` waits for a token of `source`."""
        _, flag = self._flags(source, to)
        if flag in self._pops[to]:
            self._append(_NOPS[to])
        self._pops[to][flag] = 1

    def build(self) -> Program:
        """The program: all that was added, then a wait for both other stages, and FINISH. Only once."""
        for stage in (Stage.LOAD, Stage.STORE):
            self.push(stage, Stage.COMPUTE)
            self.pop(stage, Stage.COMPUTE)
        self._append(_NOPS[Stage.COMPUTE])
        self._append(Finish())
        self._built = True
        return Program(np.concatenate(self._parts), (tuple(self._stream),))

    def _place(self, data: np.ndarray) -> int:
        address = self._bytes
        self._parts += [data, np.zeros(-data.size % PAGE, np.uint8)]
        self._bytes += data.size + -data.size % PAGE
        return address

    def _require(self, uops: Uops) -> None:
        if uops in self._loaded:
            return
        self._loaded.add(uops)
        # Never behind the pops that wait for the instruction that runs them.
        pending, self._pops[Stage.COMPUTE] = self._pops[Stage.COMPUTE], {}
        self.load(Memory.UOP, uops.address, sram=uops.begin, cols=uops.end - uops.begin)
        self._pops[Stage.COMPUTE] = pending

    def _append(self, instruction: Instruction) -> None:
        if self._built:
            raise VtaError("the program ends with FINISH since build(); begin another Builder")
        stage = stage_of(instruction)
        instruction = _with_flags(instruction, self._pops[stage])
        self._pops[stage] = {}
        encode(instruction, self.config)
        self._last[stage] = len(self._stream)
        self._stream.append(instruction)

    def _element(self, memory: Memory, address: int) -> int:
        size = self.config.element_bytes(memory)
        if address % size:
            raise VtaError(
                f"address {address:#x} is no multiple of the {size} bytes of a {memory.name} element"
            )
        return address // size

    def _flags(self, source: Stage, to: Stage) -> tuple[str, str]:
        if (source, to) not in _FLAGS:
            raise VtaError(f"no token queue from {source.name} to {to.name}; go through COMPUTE")
        return _FLAGS[source, to]


def _with_flags(instruction: Any, flags: Mapping[str, int]) -> Instruction:
    flagged: Instruction = replace(instruction, **flags)
    return flagged


def _loops(uops: Uops, outer: Loop, inner: Loop) -> dict[str, int]:
    return {
        "uop_bgn": uops.begin,
        "uop_end": uops.end,
        "iter_out": outer.extent,
        "iter_in": inner.extent,
        "dst_factor_out": outer.dst,
        "dst_factor_in": inner.dst,
        "src_factor_out": outer.src,
        "src_factor_in": inner.src,
    }
