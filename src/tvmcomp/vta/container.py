"""The program container: a DRAM image and the instruction streams that run over it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tvmcomp.errors import VtaError
from tvmcomp.vta.config import VtaConfig
from tvmcomp.vta.files import write_file
from tvmcomp.vta.isa import INSTRUCTION_BYTES, Instruction, decode, encode

__all__ = ["DRAM_LIMIT", "PAGE", "Program", "read_program", "write_program"]

PAGE = 4096
MAGIC = b"VTAREF01"
DRAM_LIMIT = 1 << 32  # addresses are computed in 32 bits
_HEADER = struct.Struct("<8sQI")


@dataclass(frozen=True, eq=False)
class Program:
    """dram: uint8 [bytes], indexed by physical address, page 0 unmapped; launches: their instructions in order."""

    dram: np.ndarray
    launches: tuple[tuple[Instruction, ...], ...]

    def __post_init__(self) -> None:
        if self.dram.dtype != np.uint8 or self.dram.ndim != 1:
            raise VtaError(f"dram is {self.dram.dtype}{list(self.dram.shape)}; give uint8 [bytes]")
        if self.dram.size % PAGE or not self.dram.size:
            raise VtaError(f"dram has {self.dram.size} bytes; give whole pages of {PAGE}")
        if self.dram.size > DRAM_LIMIT:
            raise VtaError(f"dram has {self.dram.size} bytes; 32-bit addresses reach {DRAM_LIMIT}")


def read_program(path: Path, config: VtaConfig) -> Program:
    """Read a container. Raises VtaError with what is wrong in it."""
    try:
        with open(path, "rb") as file:
            # A file that is something else need not be read to its end, nor have one.
            data = file.read(_HEADER.size)
            _check_header(data)
            data += file.read()
        return _parse(data, config)
    except OSError as error:
        raise VtaError(f"{path}: cannot be read: {error.strerror}") from error
    except VtaError as error:
        raise VtaError(f"{path}: {error}") from error


def _check_header(data: bytes) -> None:
    if len(data) < _HEADER.size:
        raise VtaError(f"has {len(data)} bytes, a container's header {_HEADER.size}; it is cut off")
    magic, dram_bytes, _ = _HEADER.unpack(data)
    if magic != MAGIC:
        raise VtaError(f"begins with {magic!r}, not {MAGIC!r}; it is no program container")
    if not dram_bytes or dram_bytes % PAGE or dram_bytes > DRAM_LIMIT:
        raise VtaError(
            f"dram_bytes is {dram_bytes}; it takes whole pages of {PAGE} up to {DRAM_LIMIT}"
        )


def _parse(data: bytes, config: VtaConfig) -> Program:
    _, dram_bytes, launches = _HEADER.unpack_from(data)
    body = _HEADER.size + 4 * launches
    if len(data) < body + dram_bytes:
        raise VtaError(
            f"has {len(data)} bytes; {launches} launches and {dram_bytes} bytes of DRAM need at least "
            f"{body + dram_bytes}"
        )
    counts = struct.unpack_from(f"<{launches}I", data, _HEADER.size)
    begin = body + dram_bytes
    size = begin + INSTRUCTION_BYTES * sum(counts)
    if len(data) != size:
        raise VtaError(
            f"has {len(data)} bytes; its header counts {sum(counts)} instructions, {size} bytes in all"
        )
    streams = []
    for count in counts:
        end = begin + INSTRUCTION_BYTES * count
        starts = range(begin, end, INSTRUCTION_BYTES)
        streams.append(tuple(decode(data[i : i + INSTRUCTION_BYTES], config) for i in starts))
        begin = end
    dram = np.frombuffer(data, np.uint8, dram_bytes, body).copy()
    return Program(dram, tuple(streams))


def write_program(program: Program, path: Path, config: VtaConfig) -> None:
    """Write a container. Raises VtaError if an instruction's field overflows, naming the instruction, and if the file
    cannot be written."""
    counts = [len(stream) for stream in program.launches]
    parts: list[bytes | memoryview] = [
        _HEADER.pack(MAGIC, program.dram.size, len(counts)),
        struct.pack(f"<{len(counts)}I", *counts),
        program.dram.data,
    ]
    for launch, stream in enumerate(program.launches):
        for index, instruction in enumerate(stream):
            try:
                parts.append(encode(instruction, config))
            except VtaError as error:
                raise VtaError(f"launch {launch}, instruction {index}: {error}") from error
    write_file(path, parts)
