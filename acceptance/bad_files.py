"""Broken models and data through the command line: one line, exit 3, nothing written."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from acceptance.apart import environment
from acceptance.context import Context
from acceptance.row import Check, Row, holds, tried

__all__ = ["ROW"]

_BAD_INPUT = 3


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def refused(what: str, folder: Path, arguments: Sequence[str], says: Sequence[str]) -> Check:
    """Whether `tvmcomp ARGUMENTS` refuses as it must and leaves `folder` as it was."""
    before = _snapshot(folder)
    done = subprocess.run(
        [sys.executable, "-m", "tvmcomp", *arguments],
        env=environment(), cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    others = [line for line in lines if not line.startswith(("error: ", "hint: "))]
    faults = []
    if done.returncode != _BAD_INPUT:
        faults.append(f"exit {done.returncode}")
    if len(errors) != 1 or others:
        faults.append(f"{len(errors)} error lines and {len(others)} others: {others[:3]}")
    if done.stdout:
        faults.append(f"stdout {done.stdout[:100]!r}")
    missing = [word for word in says if word.lower() not in done.stderr.lower()]
    if missing:
        faults.append(f"does not name {', '.join(missing)}")
    if _snapshot(folder) != before:
        written = sorted(set(_snapshot(folder)) ^ set(before)) or "changed files"
        faults.append(f"wrote {written}")
    said = errors[0] if errors else " / ".join(lines[-2:])
    return holds(what, not faults, f"{'; '.join(faults)}{': ' if faults else ''}{said}")


def _samples() -> Mapping[str, tuple[dict[str, np.ndarray], tuple[str, ...]]]:
    """What is wrong -> (arrays of the .npz, words the error must hold)."""
    good = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    bad, endless = good.copy(), good.copy()
    bad[2, 1, 3, 3] = np.nan
    endless[1, 0, 0, 0] = np.inf
    return {
        "NaN": ({"x": bad}, ("nan",)),
        "infinity": ({"x": endless}, ("inf",)),
        "no samples": ({"x": good[:0]}, ("sample",)),
        "no arrays": ({}, ("x",)),
        "int64": ({"x": good.astype(np.int64)}, ("int64", "float32")),
        "float64": ({"x": good.astype(np.float64)}, ("float64", "float32")),
        "text": ({"x": np.array(["a", "b"])}, ("x",)),
        "wrong shape": ({"x": good[:, :, :4]}, ("shape",)),
        "wrong name": ({"z": good}, ("z", "x")),
    }


def _data() -> Iterator[Check]:
    from acceptance.broken_models import sound_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, data = sound_model(folder), folder / "data.npz"
        artifact = folder / "sound.tvmcomp"
        compile_ = ["compile", str(model), "--recipe", "int8", "-o", "out.tvmcomp", "--calibration"]
        for what, (arrays, says) in _samples().items():
            np.savez(data, **arrays)
            yield refused(f"calibration: {what}", folder, [*compile_, str(data)], says)
        data.write_bytes(b"PK\x03\x04 no more than this")
        yield refused("calibration: a broken .npz", folder, [*compile_, str(data)], ("data.npz",))
        np.savez(data, x=np.array([{"a": 1}], object))
        yield refused("calibration: pickled objects", folder, [*compile_, str(data)], ("data.npz",))
        (folder / "empty").mkdir()
        yield refused("calibration: an empty folder", folder, [*compile_, "empty"], ("empty",))
        yield refused(
            "calibration: no such file", folder, [*compile_, "absent.npz"], ("absent.npz",)
        )
        _make(model, artifact)
        run = ["run", str(artifact), "-i", str(data), "-o", "out.npz"]
        for what, (arrays, says) in _samples().items():
            # A network runs on NaN and infinities as its arithmetic has it.
            if what not in ("NaN", "infinity", "float64"):
                np.savez(data, **arrays)
                yield refused(f"run: {what}", folder, run, says)


def _make(model: Path, artifact: Path) -> None:
    import tvmcomp as tc

    tc.compile(tc.load_model(model)).save(artifact)


def _models() -> Iterator[Check]:
    from acceptance.broken_models import BROKEN

    for broken in BROKEN:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = broken.write(folder)
            arguments = ["compile", str(path), "-o", "out.tvmcomp"]
            yield refused(f"model: {broken.what}", folder, arguments, broken.says)


def _run(_: Context) -> Iterator[Check]:
    yield from tried("models", _models)
    yield from tried("data", _data)


ROW = Row("bad-files", "broken models and data: one line each, exit 3, nothing written", _run)
