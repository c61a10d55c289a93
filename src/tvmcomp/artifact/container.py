"""The container: a zip file of stored entries with one possible form and a digest in its comment.

    local header, padding field, data    per entry; every data starts at a multiple of 64 bytes
    central directory
    end record, comment "tvmcomp-sha256:" + the SHA-256 of all bytes before it, 64 hex digits

Names, sizes and checksums determine every other byte: timestamps, attributes, versions and padding
are fixed. So the reader takes those three from the central directory, builds all headers anew and
compares them byte for byte; whatever `zipfile` would forgive (prefix, holes, overlaps, encryption,
links, zip64, two directories that disagree) cannot be equal. Ordinary zip tools read it.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from tvmcomp.errors import ArtifactError

__all__ = ["ALIGNMENT", "MAX_BYTES", "Buffer", "Container", "pack", "unpack"]

Buffer: TypeAlias = bytes | bytearray | memoryview

ALIGNMENT = 64
MAX_BYTES = 2**32 - 1  # no zip64: a form with two ways to say one size is a form that can lie
MAX_ENTRIES = 4096
MAX_DATA_BYTES = MAX_BYTES - 2**22  # leaves room for MAX_ENTRIES headers and records

_FRAME = b"tvmcomp-sha256:"
_SEAL = len(_FRAME) + 64
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_EXTRA = struct.Struct("<3H")
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

_VERSION_NEEDED = 10
_VERSION_MADE = (3 << 8) | 10  # Unix, so the attributes below are a mode
_REGULAR_FILE = 0o100644 << 16
_DATE = (1 << 5) | 1  # 1980-01-01, so equal content gives equal bytes
_PADDING_ID = 0xD935  # the registered extra field for data alignment
_SMALLEST = _END.size + _SEAL


@dataclass(frozen=True, eq=False)
class Container:
    """A checked container: its size, its seal's digest, and its entries as views into the file."""

    bytes: int
    sha256: str
    entries: Mapping[str, memoryview]


@dataclass(frozen=True)
class _Entry:
    name: str
    crc: int
    size: int


@dataclass(frozen=True)
class _Layout:
    headers: tuple[bytes, ...]
    header_offsets: tuple[int, ...]
    tail: bytes  # central directory, end record and the seal's frame

    def data_offset(self, index: int) -> int:
        return self.header_offsets[index] + len(self.headers[index])


def pack(entries: Mapping[str, Buffer]) -> Iterator[Buffer]:
    """The bytes of a container with these entries in this order, in pieces."""
    views = {name: memoryview(data) for name, data in entries.items()}
    table = [_Entry(name, zlib.crc32(view), view.nbytes) for name, view in views.items()]
    _check_names([entry.name for entry in table])
    layout = _lay_out(table)
    digest = hashlib.sha256()
    for header, view in zip(layout.headers, views.values(), strict=True):
        digest.update(header)
        digest.update(view)
        yield header
        yield view
    digest.update(layout.tail)
    yield layout.tail
    yield digest.hexdigest().encode("ascii")


def unpack(file: memoryview) -> Container:
    """Check every byte of a container and return its entries as views into it."""
    digest = _check_seal(file)
    table = _read_directory(file)
    _check_names([entry.name for entry in table])
    layout = _lay_out(table)
    entries = {}
    for index, entry in enumerate(table):
        begin = layout.data_offset(index)
        header = file[layout.header_offsets[index] : begin]
        if header != layout.headers[index]:
            raise ArtifactError(
                f"entry {entry.name!r}: its local header is not what its directory record implies "
                "(hole, overlap, flag, method, extra field or size); save the artifact again"
            )
        data = file[begin : begin + entry.size]
        if data.nbytes != entry.size or zlib.crc32(data) != entry.crc:
            raise ArtifactError(f"entry {entry.name!r}: wrong CRC or size; save the artifact again")
        entries[entry.name] = data
    last = layout.data_offset(len(table) - 1) + table[-1].size if table else 0
    if file[last:-64] != layout.tail:
        raise ArtifactError(
            "the zip directory is not what its entries imply (order, flags, attributes, offsets, "
            "counts or foreign bytes); save the artifact again"
        )
    return Container(file.nbytes, digest, entries)


def _check_seal(file: memoryview) -> str:
    if not _SMALLEST <= file.nbytes <= MAX_BYTES:
        raise ArtifactError(
            f"{file.nbytes} bytes is no size an artifact can have; copy the whole file again"
        )
    seal = bytes(file[-_SEAL:])
    if not seal.startswith(_FRAME):
        raise ArtifactError(
            "no tvmcomp seal at the end: truncated, or not an artifact; copy the whole file again"
        )
    digest = hashlib.sha256(file[:-64]).hexdigest()
    if seal[len(_FRAME) :] != digest.encode("ascii"):
        raise ArtifactError(
            f"damaged: the content's SHA-256 is {digest[:16]}..., the seal says otherwise; "
            "copy the file again"
        )
    return digest


def _read_directory(file: memoryview) -> list[_Entry]:
    end = file.nbytes - _SMALLEST
    magic, _, _, _, count, size, begin, _ = _END.unpack_from(file, end)
    if magic != _END_MAGIC or begin + size != end:
        raise ArtifactError(
            f"the zip end record names {count} entries and a directory of {size} bytes at {begin}, "
            f"it must end at {end}; save the artifact again"
        )
    table = []
    while begin < end:
        record = file[begin : min(begin + _CENTRAL.size, end)]
        if record.nbytes < _CENTRAL.size or record[:4] != _CENTRAL_MAGIC:
            raise ArtifactError(f"no directory record at byte {begin}; save the artifact again")
        values = _CENTRAL.unpack(record)
        crc, size, name_size = values[7], values[9], values[10]
        name = bytes(file[begin + _CENTRAL.size : min(begin + _CENTRAL.size + name_size, end)])
        table.append(_Entry(name.decode("latin-1"), crc, size))
        begin += _CENTRAL.size + name_size
    if begin != end or len(table) != count:
        raise ArtifactError(
            f"the zip directory holds {len(table)} records, its end record says {count}; "
            "save the artifact again"
        )
    return table


def _check_names(names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not _NAME.fullmatch(name) or len(name) > 200:
            raise ArtifactError(
                f"entry name {name[:60]!r} is not a relative path of letters, digits, '_', '-' "
                "and '.'; save the artifact again"
            )
        if name.lower() in seen:
            raise ArtifactError(
                f"entry {name!r} appears twice or differs from another only in case; "
                "save the artifact again"
            )
        seen.add(name.lower())


def _lay_out(table: list[_Entry]) -> _Layout:
    total = sum(entry.size for entry in table)
    if total > MAX_DATA_BYTES or len(table) > MAX_ENTRIES:
        raise ArtifactError(
            f"{len(table)} entries of {total} bytes, at most {MAX_ENTRIES} entries of "
            f"{MAX_DATA_BYTES} bytes are allowed; split the model or compress it further"
        )
    headers, offsets, central = [], [], []
    end = 0
    for entry in table:
        name = entry.name.encode("ascii")
        fixed = end + _LOCAL.size + len(name) + _EXTRA.size
        padding = -fixed % ALIGNMENT
        extra = _EXTRA.pack(_PADDING_ID, 2 + padding, ALIGNMENT) + bytes(padding)
        common = (_VERSION_NEEDED, 0, 0, 0, _DATE, entry.crc, entry.size, entry.size, len(name))
        header = _LOCAL.pack(_LOCAL_MAGIC, *common, len(extra)) + name + extra
        headers.append(header)
        offsets.append(end)
        central.append(
            _CENTRAL.pack(_CENTRAL_MAGIC, _VERSION_MADE, *common, 0, 0, 0, 0, _REGULAR_FILE, end)
            + name
        )
        end += len(header) + entry.size
    directory = b"".join(central)
    count = len(table)
    record = _END.pack(_END_MAGIC, 0, 0, count, count, len(directory), end, _SEAL)
    return _Layout(tuple(headers), tuple(offsets), directory + record + _FRAME)
