"""`Manifest`: what an artifact contains and where it runs; dataclasses one to one with JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from tvmcomp.artifact import fields
from tvmcomp.errors import ArtifactError
from tvmcomp.model import Signature, TensorType

__all__ = [
    "DTYPES",
    "SCHEMA_VERSION",
    "FileEntry",
    "Function",
    "Manifest",
    "Source",
    "Tolerance",
    "Variant",
    "Versions",
    "nbytes",
]

SCHEMA_VERSION = 1

# Item sizes stand here so that a manifest is checked without numpy seeing a foreign string.
DTYPES: Mapping[str, int] = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Versions:
    """Versions the artifact was made with; `format` is the schema version of the manifest."""

    tvmcomp: str
    tvm: str
    tvm_ffi: str
    python: str
    format: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Source:
    """The model file the artifact was compiled from; `sha256` is empty if there is none."""

    path: str
    sha256: str
    framework: str


@dataclass(frozen=True)
class FileEntry:
    """Digest and size of one entry."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Tolerance:
    """What a golden output may be off by: atol + rtol * |golden|; zeros mean bit for bit."""

    rtol: float = 0.0
    atol: float = 0.0


@dataclass(frozen=True)
class Variant:
    """A function compiled for one target: VM function `entry` of `lib`, its weights and arena.

    kernels:      one free-form row per kernel call, for `inspect --kernels`.
    weight_table: one free-form row per tensor inside `weights`, for `inspect`.
    codes:        one free-form row per quantized tensor of the model, fused ones too, for `diff`.
    """

    target: str
    triple: str
    required_features: tuple[str, ...]
    arena_bytes: int
    entry: str = "main"
    lib: str = "lib.so"
    weights: str = "weights.bin"
    kernels: tuple[Mapping[str, object], ...] = ()
    weight_table: tuple[Mapping[str, object], ...] = ()
    codes: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True)
class Function:
    """One callable with its compiled variants; `golden` says how its test run is judged."""

    name: str
    signature: Signature
    variants: tuple[Variant, ...]
    golden: Tolerance = field(default_factory=Tolerance)


@dataclass(frozen=True)
class Manifest:
    """All about an artifact but its measurements; `write_artifact` fills in `files`."""

    functions: tuple[Function, ...]
    versions: Versions
    source: Source
    recipe: Mapping[str, object] | None = None
    calibration_digest: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    steps: tuple[str, ...] = ()
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, object]:
        """The manifest as JSON values."""
        return {
            "schema_version": self.schema_version,
            "functions": [_function_json(f) for f in self.functions],
            "versions": vars(self.versions),
            "source": vars(self.source),
            "recipe": self.recipe,
            "calibration_digest": self.calibration_digest,
            "sizes": dict(self.sizes),
            "steps": list(self.steps),
            "files": {name: vars(entry) for name, entry in self.files.items()},
        }

    @classmethod
    def from_json(cls, value: object) -> Manifest:
        """Read and validate a manifest; the error names the first field that is wrong."""
        known = fields.mapping(value, "manifest")
        version = fields.integer(known.get("schema_version"), "manifest.schema_version")
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"manifest: format version {version}, this tvmcomp reads {SCHEMA_VERSION}; "
                "install the tvmcomp it was made with or compile the model again"
            )
        f = fields.record(known, "manifest", _MANIFEST_KEYS)
        return cls(
            functions=fields.items(f["functions"], "functions", _function),
            versions=_versions(f["versions"], "versions"),
            source=_source(f["source"], "source"),
            recipe=fields.optional(f["recipe"], "recipe", fields.mapping),
            calibration_digest=fields.optional(
                f["calibration_digest"], "calibration_digest", fields.text
            ),
            sizes={
                name: fields.integer(size, f"sizes.{name}")
                for name, size in fields.mapping(f["sizes"], "sizes").items()
            },
            steps=fields.texts(f["steps"], "steps"),
            files={
                name: _file(entry, f"files.{name}")
                for name, entry in fields.mapping(f["files"], "files").items()
            },
            schema_version=version,
        )


def nbytes(tensor: TensorType) -> int:
    """Size of a dense tensor in bytes."""
    return prod(tensor.shape) * DTYPES[tensor.dtype]


_MANIFEST_KEYS = (
    "schema_version",
    "functions",
    "versions",
    "source",
    "recipe",
    "calibration_digest",
    "sizes",
    "steps",
    "files",
)


def _function_json(function: Function) -> dict[str, object]:
    return {
        "name": function.name,
        "signature": {
            "inputs": _tensors_json(function.signature.inputs),
            "outputs": _tensors_json(function.signature.outputs),
        },
        "golden": vars(function.golden),
        "variants": [
            vars(v)
            | {
                "kernels": list(v.kernels),
                "weight_table": list(v.weight_table),
                "codes": list(v.codes),
            }
            for v in function.variants
        ],
    }


def _tensors_json(tensors: Mapping[str, TensorType]) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "dtype": t.dtype,
            "shape": list(t.shape),
            "bounds": None if t.bounds is None else list(t.bounds),
        }
        for name, t in tensors.items()
    ]


def _function(value: object, what: str) -> Function:
    f = fields.record(value, what, ("name", "signature", "golden", "variants"))
    s = fields.record(f["signature"], f"{what}.signature", ("inputs", "outputs"))
    g = fields.record(f["golden"], f"{what}.golden", ("rtol", "atol"))
    return Function(
        name=fields.text(f["name"], f"{what}.name"),
        signature=Signature(
            inputs=_tensors(s["inputs"], f"{what}.signature.inputs"),
            outputs=_some(_tensors(s["outputs"], f"{what}.signature.outputs"), what),
        ),
        variants=fields.items(f["variants"], f"{what}.variants", _variant),
        golden=Tolerance(
            rtol=fields.number(g["rtol"], f"{what}.golden.rtol"),
            atol=fields.number(g["atol"], f"{what}.golden.atol"),
        ),
    )


def _tensors(value: object, what: str) -> dict[str, TensorType]:
    tensors = fields.items(value, what, _tensor)
    if len(dict(tensors)) != len(tensors):
        raise ArtifactError(f"{what}: two tensors share a name; save the artifact again")
    return dict(tensors)


def _some(outputs: dict[str, TensorType], what: str) -> dict[str, TensorType]:
    """A network may compute constants and take nothing, but it gives something."""
    if not outputs:
        raise ArtifactError(f"{what}.signature.outputs: no tensors; save the artifact again")
    return outputs


def _tensor(value: object, what: str) -> tuple[str, TensorType]:
    f = fields.record(value, what, ("name", "dtype", "shape", "bounds"))
    tensor = TensorType(
        shape=fields.items(f["shape"], f"{what}.shape", fields.integer),
        dtype=fields.text(f["dtype"], f"{what}.dtype"),
        bounds=fields.optional(f["bounds"], f"{what}.bounds", _bounds),
    )
    if tensor.dtype not in DTYPES:
        raise fields.wrong(f"{what}.dtype", f"one of {', '.join(DTYPES)}", tensor.dtype)
    if nbytes(tensor) >= 2**40 or len(tensor.shape) > 32:
        raise fields.wrong(f"{what}.shape", "at most 32 dimensions and under 1 TiB", tensor.shape)
    return fields.text(f["name"], f"{what}.name"), tensor


def _bounds(value: object, what: str) -> tuple[int, int]:
    pair = value if isinstance(value, list) else []
    whole = [n for n in pair if isinstance(n, int) and not isinstance(n, bool) and abs(n) < 2**63]
    if len(pair) != 2 or len(whole) != 2 or whole[0] > whole[1]:
        raise fields.wrong(what, "null or [lowest, highest]", value)
    return whole[0], whole[1]


def _variant(value: object, what: str) -> Variant:
    f = fields.record(value, what, tuple(Variant.__dataclass_fields__))
    return Variant(
        target=fields.text(f["target"], f"{what}.target"),
        triple=fields.text(f["triple"], f"{what}.triple"),
        required_features=fields.texts(f["required_features"], f"{what}.required_features"),
        arena_bytes=fields.integer(f["arena_bytes"], f"{what}.arena_bytes"),
        entry=fields.text(f["entry"], f"{what}.entry"),
        lib=fields.text(f["lib"], f"{what}.lib"),
        weights=fields.text(f["weights"], f"{what}.weights"),
        kernels=fields.items(f["kernels"], f"{what}.kernels", fields.mapping),
        weight_table=fields.items(f["weight_table"], f"{what}.weight_table", fields.mapping),
        codes=fields.items(f["codes"], f"{what}.codes", fields.mapping),
    )


def _versions(value: object, what: str) -> Versions:
    f = fields.record(value, what, tuple(Versions.__dataclass_fields__))
    return Versions(
        tvmcomp=fields.text(f["tvmcomp"], f"{what}.tvmcomp"),
        tvm=fields.text(f["tvm"], f"{what}.tvm"),
        tvm_ffi=fields.text(f["tvm_ffi"], f"{what}.tvm_ffi"),
        python=fields.text(f["python"], f"{what}.python"),
        format=fields.integer(f["format"], f"{what}.format"),
    )


def _source(value: object, what: str) -> Source:
    f = fields.record(value, what, tuple(Source.__dataclass_fields__))
    return Source(
        path=fields.text(f["path"], f"{what}.path"),
        sha256=fields.text(f["sha256"], f"{what}.sha256"),
        framework=fields.text(f["framework"], f"{what}.framework"),
    )


def _file(value: object, what: str) -> FileEntry:
    f = fields.record(value, what, ("sha256", "bytes"))
    sha256 = fields.text(f["sha256"], f"{what}.sha256")
    if not _SHA256.fullmatch(sha256):
        raise fields.wrong(f"{what}.sha256", "64 hex digits", sha256)
    return FileEntry(sha256=sha256, bytes=fields.integer(f["bytes"], f"{what}.bytes"))
