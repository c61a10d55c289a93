"""Reading and writing artifact files: one read into one aligned buffer, one atomic replace."""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tvmcomp.artifact import fields
from tvmcomp.artifact.container import MAX_BYTES, Buffer, Container, pack, unpack
from tvmcomp.artifact.manifest import FileEntry, Function, Manifest, nbytes
from tvmcomp.errors import ArtifactError, DataError, TvmcompError
from tvmcomp.model import TensorType

__all__ = [
    "Payload",
    "Report",
    "read_artifact",
    "verify",
    "with_measurements",
    "write_artifact",
]

MANIFEST = "manifest.json"
MEASUREMENTS = "measurements.json"
MAX_MANIFEST_BYTES = 16 * 2**20

# Kernels may load a little past a tensor's end (see kernels/kernel.py), so the buffer goes on.
_SLACK = 4096


@dataclass(frozen=True, eq=False)
class Payload:
    """The content of an artifact.

    lib:            bytes of the shared library of the one variant.
    weights:        uint8 [W]: packed constants of all kernels; a view of the file once read.
    golden_inputs:  name -> array: one test run, in the signature's dtypes and shapes, with
    golden_outputs: what it must give, within the function's tolerance.
    """

    manifest: Manifest
    lib: Buffer
    weights: np.ndarray
    golden_inputs: Mapping[str, np.ndarray]
    golden_outputs: Mapping[str, np.ndarray]
    measurements: Mapping[str, object] = field(default_factory=dict)

    @property
    def function(self) -> Function:
        """The one function; this reader of the format knows exactly one, with one variant."""
        functions = self.manifest.functions
        if len(functions) != 1 or len(functions[0].variants) != 1:
            raise ArtifactError(
                f"manifest: {len(functions)} functions with "
                f"{[len(f.variants) for f in functions]} variants, this tvmcomp reads one "
                "with one; update tvmcomp"
            )
        return functions[0]


@dataclass(frozen=True)
class Report:
    """A verified artifact: its size, its seal's digest, and the entries by name."""

    path: Path
    bytes: int
    sha256: str
    entries: Mapping[str, FileEntry]
    manifest: Manifest


def write_artifact(path: str | os.PathLike[str], payload: Payload) -> Manifest:
    """Write `payload` to `path` atomically; returns the manifest with its `files` filled in."""
    entries = _entries(payload)
    files = {name: _file_entry(data) for name, data in entries.items()}
    manifest = replace(payload.manifest, files=files)
    encoded = fields.encode(manifest.to_json(), "manifest")
    if len(encoded) > MAX_MANIFEST_BYTES:
        raise ArtifactError(
            f"manifest: {len(encoded)} bytes, at most {MAX_MANIFEST_BYTES} are allowed; "
            "shorten its kernel and weight tables"
        )
    Manifest.from_json(fields.decode(encoded, "manifest"))
    _write(path, pack(_with_texts(encoded, payload.measurements, entries)))
    return manifest


def read_artifact(path: str | os.PathLike[str]) -> Payload:
    """Read an artifact and check its seal, container, manifest and entries; runs none of it."""
    return _open(Path(path))[1]


def with_measurements(path: str | os.PathLike[str], measurements: Mapping[str, object]) -> None:
    """Replace an artifact's measurements atomically; every other entry keeps its bytes."""
    entries = dict(_open(Path(path))[0].entries)
    manifest = bytes(entries.pop(MANIFEST))
    del entries[MEASUREMENTS]
    _write(path, pack(_with_texts(manifest, measurements, entries)))


def verify(path: str | os.PathLike[str]) -> Report:
    """Check all that can be checked without running the network; raises on the first mismatch."""
    path = Path(path)
    container, payload = _open(path)
    return Report(
        path=path,
        bytes=container.bytes,
        sha256=container.sha256,
        entries={name: _file_entry(data) for name, data in container.entries.items()},
        manifest=payload.manifest,
    )


def _open(path: Path) -> tuple[Container, Payload]:
    file = _read(path)
    try:
        container = unpack(file.data[:-_SLACK])
        payload = _payload(container.entries)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None
    # A slice of the whole buffer, so that whoever holds the weights can see the slack behind them.
    begin = payload.weights.ctypes.data - file.ctypes.data
    return container, replace(payload, weights=file[begin : begin + payload.weights.nbytes])


def _entries(payload: Payload) -> dict[str, Buffer]:
    function = payload.function
    variant = function.variants[0]
    entries: dict[str, Buffer] = {variant.lib: payload.lib}
    for part, tensors, arrays in _golden_parts(function, payload):
        if set(arrays) != set(tensors):
            raise ArtifactError(
                f"golden {part}: got {sorted(arrays)}, the signature names {sorted(tensors)}"
            )
        for index, (name, tensor) in enumerate(tensors.items()):
            array = np.asarray(arrays[name])
            if array.dtype != np.dtype(tensor.dtype) or array.shape != tensor.shape:
                raise ArtifactError(
                    f"golden {part} {name!r}: got {array.dtype} {array.shape}, "
                    f"the signature says {tensor.dtype} {tensor.shape}"
                )
            entries[_golden_name(function, part, index)] = array.tobytes()
    weights = np.ascontiguousarray(payload.weights)
    if weights.dtype != np.uint8 or weights.ndim != 1:
        raise ArtifactError(f"weights: got {weights.dtype} {weights.shape}, expected uint8 [W]")
    entries[variant.weights] = weights.data
    return entries


def _golden_parts(
    function: Function, payload: Payload
) -> tuple[tuple[str, Mapping[str, TensorType], Mapping[str, np.ndarray]], ...]:
    return (
        ("inputs", function.signature.inputs, payload.golden_inputs),
        ("outputs", function.signature.outputs, payload.golden_outputs),
    )


def _golden_name(function: Function, part: str, index: int) -> str:
    return f"golden/{function.name}/{part}/{index}.bin"


def _with_texts(
    manifest: bytes, measurements: Mapping[str, object], entries: Mapping[str, Buffer]
) -> dict[str, Buffer]:
    return {
        MANIFEST: manifest,
        MEASUREMENTS: fields.encode(dict(measurements), "measurements"),
        **entries,
    }


def _payload(entries: Mapping[str, memoryview]) -> Payload:
    for name in (MANIFEST, MEASUREMENTS):
        if name not in entries:
            raise ArtifactError(f"entry {name!r} is missing; save the artifact again")
    if entries[MANIFEST].nbytes > MAX_MANIFEST_BYTES:
        raise ArtifactError(
            f"manifest: {entries[MANIFEST].nbytes} bytes, at most {MAX_MANIFEST_BYTES} are allowed"
        )
    manifest = Manifest.from_json(fields.decode(entries[MANIFEST], "manifest"))
    measurements = fields.mapping(
        fields.decode(entries[MEASUREMENTS], "measurements"), "measurements"
    )
    files = {n: data for n, data in entries.items() if n not in (MANIFEST, MEASUREMENTS)}
    payload = Payload(manifest, b"", np.empty(0, np.uint8), {}, {}, measurements)
    function = payload.function
    variant = function.variants[0]
    golden = {
        part: {
            name: (_golden_name(function, part, index), tensor)
            for index, (name, tensor) in enumerate(tensors.items())
        }
        for part, tensors, _ in _golden_parts(function, payload)
    }
    used = {name for part in golden.values() for name, _ in part.values()}
    used |= {variant.lib, variant.weights}
    if not set(files) == set(manifest.files) == used:
        odd = sorted((set(files) ^ used) | (set(manifest.files) ^ used))
        raise ArtifactError(
            f"entries {odd} are missing, unlisted or unused; save the artifact again"
        )
    for name, data in files.items():
        if _file_entry(data) != manifest.files[name]:
            raise ArtifactError(
                f"entry {name!r}: its size or SHA-256 differs from the manifest's; "
                "save the artifact again"
            )
    return replace(
        payload,
        lib=files[variant.lib],
        weights=np.frombuffer(files[variant.weights], np.uint8),
        golden_inputs=_golden_arrays(files, golden["inputs"]),
        golden_outputs=_golden_arrays(files, golden["outputs"]),
    )


def _golden_arrays(
    files: Mapping[str, memoryview], names: Mapping[str, tuple[str, TensorType]]
) -> dict[str, np.ndarray]:
    arrays = {}
    for name, (entry, tensor) in names.items():
        if files[entry].nbytes != nbytes(tensor):
            raise ArtifactError(
                f"entry {entry!r}: {files[entry].nbytes} bytes, {tensor.dtype} {tensor.shape} "
                f"takes {nbytes(tensor)}; save the artifact again"
            )
        arrays[name] = np.frombuffer(files[entry], np.dtype(tensor.dtype)).reshape(tensor.shape)
    return arrays


def _file_entry(data: Buffer) -> FileEntry:
    return FileEntry(hashlib.sha256(data).hexdigest(), memoryview(data).nbytes)


def _read(path: Path) -> np.ndarray:
    """uint8: the file's bytes and _SLACK zeros, in one anonymous page-aligned buffer of our own."""
    try:
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ArtifactError(f"{path}: not a regular file; give the path of an artifact")
            if not 0 < status.st_size <= MAX_BYTES:
                raise ArtifactError(
                    f"{path}: {status.st_size} bytes is no size an artifact can have; "
                    "copy the whole file again"
                )
            buffer = np.frombuffer(mmap.mmap(-1, status.st_size + _SLACK), np.uint8)
            view = buffer.data[:-_SLACK]
            done = 0
            while count := file.readinto(view[done:]):
                done += count
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if done != status.st_size:
        raise ArtifactError(f"{path}: changed while it was read; try again")
    return buffer


def _write(path: str | os.PathLike[str], pieces: Iterable[Buffer]) -> None:
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            with open(temporary, "xb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        # The rename itself is durable only once the folder is.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise TvmcompError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another path"
        ) from None
