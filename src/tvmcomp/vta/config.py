"""The accelerator's configuration: the JSON keys of its hardware description, and the geometry they imply."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from pathlib import Path

from tvmcomp.errors import VtaError
from tvmcomp.vta.layout import Layout, layouts

__all__ = ["Memory", "VtaConfig"]

_PAGE = 4096  # DRAM buffers are page aligned, so an element may not be larger
_UOP_BYTES = 4
# The only widths whose storage the original defines without contradiction.
_WIDTHS = {"LOG_INP_WIDTH": 3, "LOG_WGT_WIDTH": 3, "LOG_ACC_WIDTH": 5}


class Memory(IntEnum):
    """The `memory_type` field; ACC_8BIT is ACC with int8 in DRAM."""

    UOP = 0
    WGT = 1
    INP = 2
    ACC = 3
    OUT = 4
    ACC_8BIT = 5


@dataclass(frozen=True)
class VtaConfig:
    """Sizes of one accelerator; all fields are log2, buffers in bytes, as in the JSON description.

    B = 2^log_batch rows of an input tile, K = 2^log_block both its columns and the outputs of a weight tile.
    Inputs and weights are int8, accumulators int32. Raises VtaError.
    """

    log_batch: int = 0
    log_block: int = 4
    log_uop_buff_size: int = 15
    log_inp_buff_size: int = 15
    log_wgt_buff_size: int = 18
    log_acc_buff_size: int = 17

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 32:
                raise VtaError(f"{field.name.upper()} is {value}; use 0 to 32")
        for memory in (Memory.UOP, Memory.INP, Memory.WGT, Memory.ACC):
            if self.log_depth(memory) < 1:
                raise VtaError(
                    f"LOG_{memory.name}_BUFF_SIZE is too small: the {memory.name} memory would hold "
                    f"{2.0 ** self.log_depth(memory):g} elements of {self.element_bytes(memory)} bytes; "
                    f"use at least {self.element_bytes(memory).bit_length()}"
                )
            if self.element_bytes(memory) > _PAGE:
                raise VtaError(
                    f"an element of the {memory.name} memory has {self.element_bytes(memory)} bytes, "
                    f"more than a page of {_PAGE}; use a smaller LOG_BLOCK or LOG_BATCH"
                )
        _ = self.layouts  # Refuses an instruction or a micro-op that does not fit its word.

    @classmethod
    def load(cls, path: Path) -> VtaConfig:
        """Read a JSON description."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise VtaError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise VtaError(f"{path}: not valid JSON: {error}") from error
        if not isinstance(data, dict):
            raise VtaError(f"{path}: holds a {type(data).__name__}, not an object of settings")
        try:
            return cls.from_mapping(data)
        except VtaError as error:
            raise VtaError(f"{path}: {error}") from error

    @classmethod
    def from_mapping(cls, data: Mapping[str, object]) -> VtaConfig:
        """The configuration of a description's keys; what is left out has the default size."""
        sizes = {}
        known = {field.name.upper(): field.name for field in fields(cls)}
        for key, value in data.items():
            if key in ("TARGET", "HW_VER"):
                continue
            if key not in known and key not in _WIDTHS:
                raise VtaError(f"unknown key {key!r}; the keys are {', '.join([*known, *_WIDTHS])}")
            if not isinstance(value, int) or isinstance(value, bool):
                raise VtaError(f"{key} is {value!r}; give a whole number")
            if key in _WIDTHS:
                if value != _WIDTHS[key]:
                    raise VtaError(f"{key} is {value}; only {_WIDTHS[key]} is supported")
                continue
            sizes[known[key]] = value
        return cls(**sizes)

    @property
    def batch(self) -> int:
        """Rows of an input or accumulator tile."""
        return 1 << self.log_batch

    @property
    def block(self) -> int:
        """Columns of every tile, rows of a weight tile."""
        return 1 << self.log_block

    @cached_property
    def layouts(self) -> Mapping[int | str, Layout]:
        """Opcode, or layout.UOP, -> where the fields of that instruction stand."""
        depths = (self.log_depth(m) for m in (Memory.UOP, Memory.INP, Memory.WGT, Memory.ACC))
        return layouts(*depths)

    def element_bytes(self, memory: Memory) -> int:
        """Bytes of one element in DRAM, which for ACC_8BIT is a quarter of what it takes on chip."""
        if memory == Memory.UOP:
            return _UOP_BYTES
        if memory == Memory.WGT:
            return self.block * self.block
        return self.batch * self.block * (4 if memory == Memory.ACC else 1)

    def buffer_bytes(self, memory: Memory) -> int:
        """Size of an on-chip memory; OUT has as many elements as ACC, of a quarter of the size."""
        if memory == Memory.OUT:
            return self.buffer_bytes(Memory.ACC) // 4
        sizes = {
            Memory.UOP: self.log_uop_buff_size,
            Memory.INP: self.log_inp_buff_size,
            Memory.WGT: self.log_wgt_buff_size,
        }
        return 1 << sizes.get(memory, self.log_acc_buff_size)

    def log_depth(self, memory: Memory) -> int:
        """log2 of the elements an on-chip memory holds."""
        element = {
            Memory.UOP: 2,
            Memory.WGT: 2 * self.log_block,
            Memory.INP: self.log_batch + self.log_block,
        }
        log_element = element.get(memory, self.log_batch + self.log_block + 2)
        log_bytes = {
            Memory.UOP: self.log_uop_buff_size,
            Memory.WGT: self.log_wgt_buff_size,
            Memory.INP: self.log_inp_buff_size,
        }
        return log_bytes.get(memory, self.log_acc_buff_size) - log_element

    def depth(self, memory: Memory) -> int:
        """Elements an on-chip memory holds."""
        return 1 << self.log_depth(memory)

    @cached_property
    def name(self) -> str:
        """`1x16_i8w8a32_15_15_18_17`, as bitstreams are called."""
        buffers = (
            self.log_uop_buff_size,
            self.log_inp_buff_size,
            self.log_wgt_buff_size,
            self.log_acc_buff_size,
        )
        return "_".join([f"{self.batch}x{self.block}", "i8w8a32", *map(str, buffers)])
