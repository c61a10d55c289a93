"""Instructions and micro-ops as values, and their binary form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import ClassVar, TypeAlias

import numpy as np

from tvmcomp.errors import VtaError
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.layout import ALU, FINISH, GEMM, LOAD, STORE, UOP

__all__ = [
    "INSTRUCTION_BYTES",
    "Alu",
    "AluOp",
    "Finish",
    "Gemm",
    "Illegal",
    "Instruction",
    "Load",
    "Stage",
    "Store",
    "Uop",
    "decode",
    "decode_uops",
    "encode",
    "encode_uops",
    "stage_of",
]

INSTRUCTION_BYTES = 16


class AluOp(IntEnum):
    """The `alu_opcode` field."""

    MIN = 0
    MAX = 1
    ADD = 2
    SHR = 3
    MUL = 4


class Stage(IntEnum):
    """The three in-order queues."""

    COMPUTE = 0
    LOAD = 1
    STORE = 2


@dataclass(frozen=True, kw_only=True)
class _Instruction:
    """Tokens to wait for before (`pop`) and to hand on after (`push`); prev and next as load, compute, store.

    reserved: bits that belong to no field, where they stand in the word; 0 in every portable stream.
    """

    opcode: ClassVar[int]

    pop_prev: int = 0
    pop_next: int = 0
    push_prev: int = 0
    push_next: int = 0
    reserved: int = 0


@dataclass(frozen=True, kw_only=True)
class _Transfer(_Instruction):
    """A strided 2-D transfer; sizes, strides and `dram_base` in elements of `memory_type`, stride between rows."""

    memory_type: int = 0
    sram_base: int = 0
    dram_base: int = 0
    y_size: int = 0
    x_size: int = 0
    x_stride: int = 0
    y_pad_0: int = 0
    y_pad_1: int = 0
    x_pad_0: int = 0
    x_pad_1: int = 0


@dataclass(frozen=True, kw_only=True)
class Load(_Transfer):
    """DRAM -> SRAM, with zeros around; x_size 0 does nothing at all."""

    opcode = LOAD


@dataclass(frozen=True, kw_only=True)
class Store(_Transfer):
    """Low bytes of ACC -> DRAM; x_size 0 does nothing at all."""

    opcode = STORE


@dataclass(frozen=True, kw_only=True)
class _Loops(_Instruction):
    """for o < iter_out, i < iter_in, k in [uop_bgn, uop_end): index = uop[k] + o*factor_out + i*factor_in."""

    reset: int = 0
    uop_bgn: int = 0
    uop_end: int = 0
    iter_out: int = 1
    iter_in: int = 1
    dst_factor_out: int = 0
    dst_factor_in: int = 0
    src_factor_out: int = 0
    src_factor_in: int = 0


@dataclass(frozen=True, kw_only=True)
class Gemm(_Loops):
    """ACC[dst] += INP[src] . WGT[wgt]^T, or ACC[dst] = 0 with `reset`."""

    opcode = GEMM
    wgt_factor_out: int = 0
    wgt_factor_in: int = 0


@dataclass(frozen=True, kw_only=True)
class Alu(_Loops):
    """ACC[dst] = op(ACC[dst], imm if use_imm else ACC[src]), one iteration after the other."""

    opcode = ALU
    alu_opcode: int = 0
    use_imm: int = 0
    imm: int = 0


@dataclass(frozen=True, kw_only=True)
class Finish(_Instruction):
    """Ends the launch; the last instruction to execute."""

    opcode = FINISH


@dataclass(frozen=True)
class Illegal:
    """A word whose opcode does not exist."""

    word: int

    @property
    def reason(self) -> str:
        """What is wrong with it."""
        return f"opcode {self.word & 7} does not exist; use 0 to {ALU}"


@dataclass(frozen=True)
class Uop:
    """Indices into ACC, INP (ACC for an ALU instruction) and WGT."""

    dst: int = 0
    src: int = 0
    wgt: int = 0


Instruction: TypeAlias = Load | Store | Gemm | Alu | Finish | Illegal

_KINDS: dict[int, type[Load | Store | Gemm | Alu | Finish]] = {
    kind.opcode: kind for kind in (Load, Store, Gemm, Alu, Finish)
}


def stage_of(instruction: Instruction) -> Stage:
    """The queue an instruction goes to."""
    if isinstance(instruction, Load) and instruction.memory_type in (Memory.INP, Memory.WGT):
        return Stage.LOAD
    return Stage.STORE if isinstance(instruction, Store) else Stage.COMPUTE


def encode(instruction: Instruction, config: VtaConfig) -> bytes:
    """16 bytes, little-endian. Raises VtaError if a field overflows."""
    if isinstance(instruction, Illegal):
        return instruction.word.to_bytes(INSTRUCTION_BYTES, "little")
    values = {field.name: int(getattr(instruction, field.name)) for field in fields(instruction)}
    reserved = values.pop("reserved")
    layout = config.layouts[instruction.opcode]
    if layout.reserved(reserved) != reserved or reserved >> layout.bits:
        raise VtaError(f"{layout.kind}: reserved is {reserved:#x}, which overlaps a field")
    word = layout.pack({"opcode": instruction.opcode, **values}) | reserved
    return word.to_bytes(INSTRUCTION_BYTES, "little")


def decode(data: bytes, config: VtaConfig) -> Instruction:
    """The instruction of 16 bytes; `Illegal` is a value, so that a whole stream can be read and shown."""
    if len(data) != INSTRUCTION_BYTES:
        raise VtaError(f"an instruction has {len(data)} bytes; it takes {INSTRUCTION_BYTES}")
    word = int.from_bytes(data, "little")
    kind = _KINDS.get(word & 7)
    if kind is None:
        return Illegal(word)
    layout = config.layouts[kind.opcode]
    values = layout.unpack(word)
    del values["opcode"]
    return kind(**values, reserved=layout.reserved(word))


def encode_uops(uops: Iterable[Uop], config: VtaConfig) -> np.ndarray:
    """uint32 [n]. Raises VtaError if an index overflows."""
    layout = config.layouts[UOP]
    words = [layout.pack({"dst": u.dst, "src": u.src, "wgt": u.wgt}) for u in uops]
    return np.array(words, np.uint32)


def decode_uops(words: np.ndarray, config: VtaConfig) -> np.ndarray:
    """int64 [n, 3]: dst, src, wgt of each uint32 word."""
    table = config.layouts[UOP].fields
    wide = words.astype(np.int64)
    columns = [wide >> field.bit & field.high for field in table.values()]
    return np.stack(columns, axis=-1)
