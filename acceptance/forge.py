"""Sealed artifacts that lie: right digest, wrong content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tvmcomp.artifact.container import pack, unpack

__all__ = ["forgeries", "header_offsets"]

_DIGEST = 64  # hex digits at the very end


def seal(data: bytes) -> bytes:
    """`data` with the digest that belongs to it at its end."""
    body = data[:-_DIGEST]
    return body + hashlib.sha256(body).hexdigest().encode("ascii")


def _entries(data: bytes) -> dict[str, bytes]:
    return {name: bytes(view) for name, view in unpack(memoryview(data)).entries.items()}


def _packed(entries: Mapping[str, bytes]) -> bytes:
    return b"".join(bytes(piece) for piece in pack(entries))


def header_offsets(data: bytes) -> list[int]:
    """Offsets of all bytes that are no entry's data: local headers, directory, seal."""
    import numpy as np

    headers = np.ones(len(data), bool)
    base = np.frombuffer(data, np.uint8).ctypes.data
    for view in unpack(memoryview(data)).entries.values():
        begin = np.frombuffer(view, np.uint8).ctypes.data - base
        headers[begin : begin + view.nbytes] = False
    return [int(offset) for offset in np.flatnonzero(headers)]


def _with_manifest(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    entries = _entries(data)
    manifest = json.loads(entries["manifest.json"])
    change(manifest)
    return _packed({**entries, "manifest.json": json.dumps(manifest).encode()})


def _renamed(data: bytes, name: str) -> bytes:
    """An entry of a name the writer refuses: packed under an innocent one of the same length."""
    innocent = "z" * len(name)
    packed = _packed({**_entries(data), innocent: b"evil"})
    return seal(packed.replace(innocent.encode(), name.encode()))


def forgeries(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(what is wrong, the file) for each lie; `data` is a sound artifact."""
    for name in ("../evil", "a/../../evil", "/etc/passwd", "..\\evil"):
        yield f"path {name}", _renamed(data, name)
    for name in ("lib.so", "manifest.json", "weights.bin"):
        yield f"duplicate {name}", _renamed(data, name)
    for name in _entries(data):
        kept = _entries(data)
        del kept[name]
        yield f"without {name}", _packed(kept)
    yield "one entry too many", _packed({**_entries(data), "evil.so": b"evil"})
    lib = _entries(data)["lib.so"]
    yield "another lib.so", _packed({**_entries(data), "lib.so": lib[:-1] + bytes([lib[-1] ^ 1])})

    def variant(change: Callable[[dict[str, Any]], None]) -> bytes:
        return _with_manifest(
            data, lambda manifest: change(manifest["functions"][0]["variants"][0])
        )

    def version(name: str, value: Any) -> bytes:
        return _with_manifest(data, lambda manifest: manifest["versions"].update({name: value}))

    yield "wrong arch aarch64", variant(lambda v: v.update(triple="aarch64-unknown-linux-gnu"))
    yield "wrong arch riscv64", variant(lambda v: v.update(triple="riscv64-unknown-linux-gnu"))
    yield "wrong system", variant(lambda v: v.update(triple="x86_64-pc-windows-msvc"))
    yield (
        "a CPU feature this host lacks",
        variant(lambda v: v["required_features"].append("avx10.9-512")),
    )
    yield "format version 2", _with_manifest(data, lambda m: m.update(schema_version=2))
    yield "format version 0", _with_manifest(data, lambda m: m.update(schema_version=0))
    yield "another TVM", version("tvm", "0.26.0")
    yield "another tvm_ffi", version("tvm_ffi", "9.9.9")
    yield "a manifest that is no JSON", _packed({**_entries(data), "manifest.json": b"{"})
    yield "an ELF for aarch64", _foreign_elf(data)


def _foreign_elf(data: bytes) -> bytes:
    """lib.so says aarch64 in its own header, and the manifest's digest agrees with that."""
    entries = _entries(data)
    lib = bytearray(entries["lib.so"])
    lib[18:20] = (183).to_bytes(2, "little")
    manifest = json.loads(entries["manifest.json"])
    manifest["files"]["lib.so"]["sha256"] = hashlib.sha256(lib).hexdigest()
    return _packed(
        {**entries, "lib.so": bytes(lib), "manifest.json": json.dumps(manifest).encode()}
    )
