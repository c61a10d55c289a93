"""Named arrays in files: a user's .npz, and what two processes hand each other whatever the names are."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tvmcomp.errors import DataError

__all__ = ["load_arrays", "read_npz", "save_arrays"]


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; pickled objects are refused."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise DataError(f"{path}: holds one array without a name; save it with numpy.savez")
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        # What is neither .npz nor .npy, numpy takes for a pickle and advises to trust it.
        reason = "it is in another format" if "pickled" in str(error) else str(error)
    raise DataError(f"{path}: cannot be read as .npz ({reason}); save it with numpy.savez")


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` in order; names stand beside them, since numpy reserves some as keywords."""
    with path.open("wb") as file:
        np.savez(file, *arrays.values(), names=np.array(list(arrays), dtype=np.str_))


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        names = [str(name) for name in archive["names"]]
        return {name: archive[f"arr_{i}"] for i, name in enumerate(names)}
