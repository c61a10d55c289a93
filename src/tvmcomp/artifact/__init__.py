"""The one-file artifact: manifest, library, weights, golden run; a digest seals every byte."""

from __future__ import annotations

from tvmcomp.artifact.manifest import (
    SCHEMA_VERSION,
    FileEntry,
    Function,
    Manifest,
    Source,
    Tolerance,
    Variant,
    Versions,
)
from tvmcomp.artifact.store import (
    Payload,
    Report,
    read_artifact,
    verify,
    with_measurements,
    write_artifact,
)

__all__ = [
    "SCHEMA_VERSION",
    "FileEntry",
    "Function",
    "Manifest",
    "Payload",
    "Report",
    "Source",
    "Tolerance",
    "Variant",
    "Versions",
    "read_artifact",
    "verify",
    "with_measurements",
    "write_artifact",
]
