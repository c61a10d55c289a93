"""Sizes in bytes of what a network is made of: parameters, library, file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tvmcomp.errors import DataError

__all__ = ["Size", "size"]


@dataclass(frozen=True)
class Size:
    """Bytes of the parameters as stored (packed), of the native library, of the whole file.

    A part that does not exist in this form of the network is None, never an estimate.
    """

    params_bytes: int | None
    library_bytes: int | None
    file_bytes: int | None

    def to_dict(self) -> dict[str, int | None]:
        """A JSON-able form."""
        return asdict(self)


def size(
    *,
    params: Mapping[str, np.ndarray] | None = None,
    library: Path | bytes | None = None,
    file: Path | None = None,
) -> Size:
    """Sizes of the parts given."""
    return Size(
        params_bytes=None if params is None else sum(array.nbytes for array in params.values()),
        library_bytes=len(library) if isinstance(library, bytes) else _file_bytes(library),
        file_bytes=_file_bytes(file),
    )


def _file_bytes(path: Path | None) -> int | None:
    if path is None:
        return None
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(
            f"cannot read the size of {path}: {error.strerror}; check the path"
        ) from error
