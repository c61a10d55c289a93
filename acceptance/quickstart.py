"""`tvmcomp quickstart` in an empty folder: time, accuracy lost, parameters saved, the file it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from acceptance.apart import environment
from acceptance.context import Context
from acceptance.row import Check, Row, at_most, figure, holds

__all__ = ["ROW"]

_SECONDS, _POINTS, _PARAMETERS = 180.0, 0.4, 0.30


def _run(_: Context) -> Iterator[Check]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.perf_counter()
        done = _tvmcomp(folder, "quickstart", "--json")
        seconds = time.perf_counter() - begun
        yield holds(
            "exit 0", done.returncode == 0, f"exit {done.returncode}: {done.stderr.strip()[-500:]}"
        )
        if done.returncode != 0:
            return
        yield at_most("wall time, s", seconds, _SECONDS)
        data: dict[str, Any] = json.loads(done.stdout)
        yield from _figures(data)
        artifact = folder / "digits.tvmcomp"
        yield holds("digits.tvmcomp is there", artifact.is_file())
        verified = _tvmcomp(folder, "verify", str(artifact))
        yield holds("tvmcomp verify agrees", verified.returncode == 0, verified.stderr.strip())


def _figures(data: dict[str, Any]) -> Iterator[Check]:
    float32, int8 = data["float32"], data["int8"]
    gap = 100 * (float32["accuracy"] - int8["accuracy"])
    about = (
        f"float32 {float32['accuracy']:.4f}, int8 {int8['accuracy']:.4f}, {int8['samples']} samples"
    )
    yield at_most("accuracy lost, points", gap, _POINTS, about)
    ratio = int8["params_bytes"] / float32["params_bytes"]
    sizes = f"{int8['params_bytes']} of {float32['params_bytes']} bytes"
    yield at_most("int8 parameters / float32 parameters", ratio, _PARAMETERS, sizes)
    for precision, entry in (("float32", float32), ("int8", int8)):
        yield figure(f"{precision}: file, bytes", entry["file_bytes"])
        yield figure(f"{precision}: median ms", entry["median_ms"])


def _tvmcomp(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tvmcomp", *arguments],
        env=environment(), cwd=folder, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip


ROW = Row(
    "quickstart",
    "under 3 min; int8 within 0.4 points of float; int8 parameters at most 0.30x; one file remains",
    _run,
)
