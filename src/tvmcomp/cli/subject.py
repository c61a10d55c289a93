"""An artifact as a contender in a bench, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tvmcomp import __version__
from tvmcomp.artifact import Manifest
from tvmcomp.measure import Contender
from tvmcomp.runtime import Network, load

__all__ = ["contender", "open_artifact"]


class _Subject:
    """A `measure.Runner` over a loaded artifact."""

    def __init__(self, network: Network, threads: int) -> None:
        self._network = network
        self.versions = {"tvmcomp": __version__, "tvm": network.manifest.versions.tvm}
        variant = network.manifest.functions[0].variants[0]
        self.settings = {
            "threads": threads,
            "executors": network.executors,
            "target": variant.target,
            "instruction_set": sorted({str(row["isa"]) for row in variant.kernels if "isa" in row}),
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return list(self._network.run(inputs).values())


def open_artifact(*, path: str, threads: int) -> _Subject:
    """What the contender's process calls."""
    return _Subject(load(path, threads=threads, executors=1), threads)


def contender(path: Path, manifest: Manifest) -> Contender:
    """The artifact at `path` as a bench's subject."""
    precision = "float32" if manifest.recipe is None else str(manifest.recipe.get("name", "mixed"))
    options: dict[str, Any] = {"path": str(path.resolve())}
    return Contender("tvmcomp", precision, f"{__name__}:open_artifact", options)
