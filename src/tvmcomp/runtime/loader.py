"""The program of a bundle: run its artifact on an `.npz` file, or check that it runs here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tvmcomp.errors import DataError, TvmcompError, UsageError
from tvmcomp.runtime.network import load

__all__ = ["main"]

_USAGE = "usage: run.py [inputs.npz outputs.npz]"


def main(artifact: str | os.PathLike[str], arguments: Sequence[str]) -> int:
    """Run with the given command-line arguments; returns the exit code."""
    try:
        _main(artifact, arguments)
    except TvmcompError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _main(artifact: str | os.PathLike[str], arguments: Sequence[str]) -> None:
    if len(arguments) not in (0, 2):
        raise UsageError(_USAGE)
    with load(artifact) as network:
        if not arguments:
            signature = network.signature
            for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
                for name, tensor in tensors.items():
                    print(f"{kind} {name}: {tensor.dtype} {list(tensor.shape)}")
            print("ok: the golden run reproduces on this host")
            return
        source, target = map(Path, arguments)
        outputs = network.run(_read(source))
    np.savez(target, allow_pickle=False, **outputs)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give an .npz file") from None
