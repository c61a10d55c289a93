"""Whole programs as text: DRAM contents and instruction streams, line by line.

.dram 0x5000                 size of the DRAM image in bytes, before everything else
.i8   0x1000 1 -2 3          int8 values from a byte address on; .i32 likewise, little-endian
.hex  0x1000 00ff10          bytes
.file 0x2000 weights.bin     the bytes of a file beside this one
.uop  0x3000 0,0,0 1,0,2     micro-ops dst,src,wgt
.launch                      begins an instruction stream; then one instruction per line (`vta/text.py`)
; a comment, to the end of the line
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tvmcomp.errors import VtaError
from tvmcomp.vta.config import VtaConfig
from tvmcomp.vta.container import DRAM_LIMIT, PAGE, Program
from tvmcomp.vta.isa import Illegal, Instruction, Uop, decode, encode, encode_uops
from tvmcomp.vta.text import format_instruction, parse_instruction, parse_number

__all__ = ["assemble", "disassemble"]

_HEX_BYTES = 32
_DTYPES = {".i8": "<i1", ".i32": "<i4"}


def assemble(text: str, config: VtaConfig, folder: Path | None = None) -> Program:
    """The program `text` describes; `.file` looks in `folder`. Raises VtaError naming the line."""
    state = _Assembly(config, folder)
    for number, line in enumerate(text.splitlines(), start=1):
        code = line.partition(";")[0].strip()
        if not code:
            continue
        try:
            state.add(code)
        except VtaError as error:
            raise VtaError(f"line {number}: {error}") from error
    if state.dram is None:
        raise VtaError("no .dram line; begin with one, as in .dram 0x5000")
    return Program(state.dram, tuple(tuple(stream) for stream in state.launches))


def disassemble(program: Program) -> str:
    """Text that assembles to the same program."""
    lines = [f".dram {program.dram.size:#x}"]
    lines += [
        f".hex {address:#x} {data.tobytes().hex()}" for address, data in _chunks(program.dram)
    ]
    for stream in program.launches:
        lines += ["", ".launch"]
        lines += [format_instruction(instruction) for instruction in stream]
    return "\n".join(lines) + "\n"


def _chunks(dram: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Address and bytes of every row of _HEX_BYTES that is not all zero."""
    rows = dram.reshape(-1, _HEX_BYTES)
    for index in np.flatnonzero(rows.any(axis=1)).tolist():
        yield index * _HEX_BYTES, rows[index]


@dataclass(eq=False)
class _Assembly:
    config: VtaConfig
    folder: Path | None
    dram: np.ndarray | None = None
    launches: list[list[Instruction]] = field(default_factory=list)

    def add(self, code: str) -> None:
        directive, *words = code.split()
        if not directive.startswith("."):
            self._instruction(code)
        elif directive == ".launch":
            if words:
                raise VtaError(f".launch takes nothing, got {' '.join(words)}")
            self.launches.append([])
        elif directive == ".dram":
            self._dram(words)
        else:
            self._data(directive, words)

    def _instruction(self, code: str) -> None:
        if not self.launches:
            raise VtaError("an instruction before the first .launch; begin its stream with .launch")
        instruction = parse_instruction(code)
        data = encode(instruction, self.config)
        if isinstance(instruction, Illegal):
            instruction = decode(data, self.config)
        self.launches[-1].append(instruction)

    def _dram(self, words: list[str]) -> None:
        if self.dram is not None:
            raise VtaError("a second .dram")
        if len(words) != 1:
            raise VtaError(".dram takes one size in bytes, as in .dram 0x5000")
        size = parse_number(words[0])
        if not 0 < size <= DRAM_LIMIT or size % PAGE:
            raise VtaError(
                f".dram {words[0]}: give whole pages of {PAGE} bytes up to {DRAM_LIMIT:#x}"
            )
        self.dram = np.zeros(size, np.uint8)

    def _data(self, directive: str, words: list[str]) -> None:
        if directive not in (*_DTYPES, ".hex", ".uop", ".file"):
            raise VtaError(
                f"unknown directive {directive!r}; use .dram, .i8, .i32, .hex, .file, .uop or .launch"
            )
        if self.dram is None:
            raise VtaError(f"{directive} before .dram")
        if len(words) < 2:
            raise VtaError(f"{directive} takes an address and what to put there")
        address, values = parse_number(words[0]), words[1:]
        data = self._bytes(directive, values)
        if address < 0 or address + data.size > self.dram.size:
            raise VtaError(
                f"{directive} {words[0]}: {data.size} bytes end at {address + data.size:#x}, "
                f"DRAM at {self.dram.size:#x}"
            )
        self.dram[address : address + data.size] = data

    def _bytes(self, directive: str, values: list[str]) -> np.ndarray:
        if directive in _DTYPES:
            return _numbers(directive, values)
        if directive == ".hex":
            try:
                return np.frombuffer(bytes.fromhex("".join(values)), np.uint8)
            except ValueError:
                raise VtaError(
                    ".hex takes pairs of hexadecimal digits, as in .hex 0x1000 00ff"
                ) from None
        if directive == ".uop":
            return encode_uops(map(_uop, values), self.config).view(np.uint8)
        return self._file(values)

    def _file(self, values: list[str]) -> np.ndarray:
        if len(values) != 1 or self.folder is None:
            raise VtaError(".file takes an address and the name of a file beside the program")
        path = self.folder / values[0]
        if path.name != values[0] or path.is_symlink():
            raise VtaError(f".file {values[0]}: not beside the program; move it there")
        if not path.is_file():
            raise VtaError(f".file {values[0]}: no such file beside the program; check its name")
        try:
            return np.fromfile(path, np.uint8)
        except OSError as error:
            raise VtaError(f".file {values[0]}: cannot be read: {error.strerror}") from error


def _numbers(directive: str, values: list[str]) -> np.ndarray:
    dtype = _DTYPES[directive]
    info = np.iinfo(np.dtype(dtype))
    numbers = [parse_number(value) for value in values]
    for number in numbers:
        if not info.min <= number <= info.max:
            raise VtaError(f"{directive}: {number} is outside {info.min} to {info.max}")
    return np.array(numbers, dtype).view(np.uint8)


def _uop(text: str) -> Uop:
    fields = text.split(",")
    if len(fields) != 3:
        raise VtaError(f".uop: {text!r} has {len(fields)} numbers; write dst,src,wgt")
    return Uop(*map(parse_number, fields))
