"""Named arrays in a file between two processes, whatever the names are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

__all__ = ["load_arrays", "save_arrays"]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` in order; names stand beside them, since numpy reserves some as keywords."""
    with path.open("wb") as file:
        np.savez(file, *arrays.values(), names=np.array(list(arrays), dtype=np.str_))


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        names = [str(name) for name in archive["names"]]
        return {name: archive[f"arr_{i}"] for i, name in enumerate(names)}
