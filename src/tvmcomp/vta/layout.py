"""Bit positions of every instruction field, by the one rule that all of them follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tvmcomp.errors import VtaError

__all__ = [
    "ALU",
    "DEPENDENCIES",
    "FINISH",
    "GEMM",
    "LOAD",
    "STORE",
    "UOP",
    "Field",
    "Layout",
    "layouts",
]

LOAD, STORE, GEMM, FINISH, ALU = range(5)
UOP = "uop"
DEPENDENCIES = ("pop_prev", "pop_next", "push_prev", "push_next")

_WORD = 64


@dataclass(frozen=True)
class Field:
    """Bits [bit, bit + width) of an instruction; `signed` is two's complement."""

    name: str
    bit: int
    width: int
    signed: bool = False

    @property
    def low(self) -> int:
        """Smallest value the field holds."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest value the field holds."""
        return (1 << (self.width - self.signed)) - 1


@dataclass(frozen=True)
class Layout:
    """The fields of one kind of instruction, `bits` wide in all."""

    kind: str
    fields: Mapping[str, Field]
    bits: int

    def pack(self, values: Mapping[str, int]) -> int:
        """The instruction as a number; a value its field cannot hold is a VtaError."""
        word = 0
        for name, value in values.items():
            field = self.fields[name]
            if not field.low <= value <= field.high:
                raise VtaError(
                    f"{self.kind}: {name} is {value}; its {field.width} bits hold "
                    f"{field.low} to {field.high}"
                )
            word |= (value & ((1 << field.width) - 1)) << field.bit
        return word

    def unpack(self, word: int) -> dict[str, int]:
        """Field name -> value."""
        values = {}
        for name, field in self.fields.items():
            value = word >> field.bit & ((1 << field.width) - 1)
            values[name] = value - (1 << field.width) if value > field.high else value
        return values

    def reserved(self, word: int) -> int:
        """The bits of `word` that belong to no field."""
        mask = 0
        for field in self.fields.values():
            mask |= ((1 << field.width) - 1) << field.bit
        return word & ~mask


@cache
def layouts(lu: int, li: int, lw: int, la: int) -> Mapping[int | str, Layout]:
    """Opcode, or UOP, -> layout, for log2 depths of the UOP, INP, WGT and ACC memories.

    Raises VtaError if an instruction does not fit 128 bits, or a micro-op 32.
    """
    memory = (
        ("memory_type", 3), ("sram_base", 16), ("dram_base", 32), ("y_size", 16), ("x_size", 16),
        ("x_stride", 16), ("y_pad_0", 4), ("y_pad_1", 4), ("x_pad_0", 4), ("x_pad_1", 4),
    )  # fmt: skip
    loops = (
        ("reset", 1), ("uop_bgn", lu), ("uop_end", lu + 1), ("iter_out", 14), ("iter_in", 14),
        ("dst_factor_out", la), ("dst_factor_in", la),
    )  # fmt: skip
    gemm = (
        ("src_factor_out", li), ("src_factor_in", li), ("wgt_factor_out", lw), ("wgt_factor_in", lw),
    )  # fmt: skip
    alu = (
        ("src_factor_out", la), ("src_factor_in", la), ("alu_opcode", 3), ("use_imm", 1), ("imm", -16),
    )  # fmt: skip
    header = (("opcode", 3), *((name, 1) for name in DEPENDENCIES))
    return {
        LOAD: _layout("LOAD", (*header, *memory), 128),
        STORE: _layout("STORE", (*header, *memory), 128),
        GEMM: _layout("GEMM", (*header, *loops, *gemm), 128),
        ALU: _layout("ALU", (*header, *loops, *alu), 128),
        FINISH: _layout("FINISH", header, 128),
        UOP: _layout("micro-op", (("dst", la), ("src", max(la, li)), ("wgt", lw)), 32),
    }


def _layout(kind: str, widths: tuple[tuple[str, int], ...], bits: int) -> Layout:
    """Pack fields upward from bit 0; one that would cross bit 64 starts there. A negative width is signed."""
    fields, bit = {}, 0
    for name, width in widths:
        signed, width = width < 0, abs(width)
        if bit < _WORD < bit + width:
            bit = _WORD
        fields[name] = Field(name, bit, width, signed)
        bit += width
    if bit > bits:
        raise VtaError(f"{kind} needs {bit} bits and has {bits}; use smaller buffers")
    return Layout(kind, fields, bits)
