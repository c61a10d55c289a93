"""A small artifact that needs no compiler, and tools to damage it and seal it again."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

import numpy as np
import pytest

from tvmcomp.artifact import Function, Manifest, Payload, Source, Variant, Versions, container
from tvmcomp.model import Signature, TensorType

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def payload() -> Payload:
    """Two inputs, one output, a library that is none, 1000 bytes of weights."""
    signature = Signature(
        inputs={"x": TensorType((2, 3), "float32"), "mask": TensorType((5,), "bool")},
        outputs={"y": TensorType((), "int64")},
    )
    variant = Variant(
        target="host",
        triple="x86_64-unknown-linux-gnu",
        required_features=("avx2", "fma"),
        arena_bytes=4096,
        kernels=({"layer": "conv1", "kernel": "dot"},),
        weight_table=({"name": "conv1.weight", "offset": 0, "bytes": 1000},),
    )
    return Payload(
        manifest=Manifest(
            functions=(Function("main", signature, (variant,)),),
            versions=Versions("0.1.0", "0.27.0", "0.1.14", "3.11.7"),
            source=Source("net.onnx", "ab" * 32, "onnx"),
            recipe={"steps": [{"kind": "quantize", "bits": 8}]},
            calibration_digest="cd" * 32,
            sizes={"weights": 1000},
            steps=("fold",),
        ),
        lib=b"\x7fELF" + bytes(range(256)) * 3,
        weights=np.arange(1000, dtype=np.uint16).astype(np.uint8),
        golden_inputs={
            "x": np.arange(6, dtype=np.float32).reshape(2, 3),
            "mask": np.array([True, False, True, True, False]),
        },
        golden_outputs={"y": np.array(-7, np.int64)},
        measurements={"latency_ms": 1.5},
    )


def seal(data: bytes) -> bytes:
    """`data` with its last 64 bytes replaced by the digest that belongs there."""
    body = data[:-64]
    return body + hashlib.sha256(body).hexdigest().encode("ascii")


def forge(entries: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A container of these entries, whatever their names."""
    with monkeypatch.context() as patch:
        patch.setattr(container, "_check_names", lambda names: None)
        return b"".join(bytes(piece) for piece in container.pack(entries))


def entries(data: bytes) -> dict[str, bytes]:
    """The entries of a sound container."""
    return {name: bytes(view) for name, view in container.unpack(memoryview(data)).entries.items()}


def header_bytes(data: bytes) -> list[int]:
    """Offsets of all bytes that are no entry's data: headers, directory, seal."""
    covered = np.zeros(len(data), bool)
    base = np.frombuffer(data, np.uint8).ctypes.data
    for view in container.unpack(memoryview(data)).entries.values():
        begin = np.frombuffer(view, np.uint8).ctypes.data - base
        covered[begin : begin + view.nbytes] = True
    return np.flatnonzero(~covered).tolist()


def positions(data: bytes, magic: bytes) -> list[int]:
    """Where the zip records with this magic number begin."""
    found, at = [], data.find(magic)
    while at >= 0:
        found.append(at)
        at = data.find(magic, at + 1)
    return found


def patched(data: bytes, at: int, form: str, value: int) -> bytes:
    """`data` with one little-endian field replaced."""
    field = struct.pack("<" + form, value)
    return data[:at] + field + data[at + len(field) :]
