"""A damaged ResNet-18 artifact is refused with one line, and no native code is loaded on the way."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from acceptance.apart import environment, run_apart
from acceptance.context import Context
from acceptance.row import Check, Row, figure, holds

__all__ = ["ROW", "measure"]

_TRUNCATIONS, _FLIPS = 50, 500
_NATIVE = ("libtvm", "tvm_ffi", "memfd:", "libtorch")


def measure(artifact: str, truncations: int, flips: int) -> dict[str, Any]:
    """Try every damaged form; for a fresh process, whose mappings show what has been loaded."""
    from acceptance.forge import forgeries, header_offsets
    from tvmcomp.errors import TvmcompError
    from tvmcomp.runtime import load

    data = Path(artifact).read_bytes()
    faults: list[str] = []
    messages: dict[str, str] = {}
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.tvmcomp"

        def refused(kind: str, what: str, content: bytes | None) -> None:
            counts[kind] = counts.get(kind, 0) + 1
            if content is not None:
                path.write_bytes(content)
            else:
                path.unlink(missing_ok=True)
            try:
                load(path)
                faults.append(f"{what}: loaded")
            except TvmcompError as error:
                messages.setdefault(kind, str(error).replace(str(path), "FILE"))
                if "\n" in str(error) or error.exit_code not in (3, 4, 5):
                    faults.append(f"{what}: exit {error.exit_code}, {str(error)!r}")
            except Exception as error:
                faults.append(f"{what}: {type(error).__name__}: {error}")
            loaded = _native()
            if loaded:
                faults.append(f"{what}: native code was loaded: {', '.join(loaded)}")

        if _native():
            faults.append(f"before the first trial: {', '.join(_native())} loaded")
        for number in range(truncations):
            size = number * len(data) // truncations
            refused("truncated", f"truncated to {size} bytes", data[:size])
        rng, headers = random.Random(1), header_offsets(data)
        for number in range(flips):
            at = rng.choice(headers) if number % 2 else rng.randrange(len(data))
            flipped = bytearray(data)
            flipped[at] ^= 1 << rng.randrange(8)
            kind = "bit flipped in a header" if number % 2 else "bit flipped anywhere"
            refused(kind, f"bit flipped at byte {at}", bytes(flipped))
        refused("missing file", "missing file", None)
        for what, content in forgeries(data):
            refused(what, what, content)
        path.write_bytes(data)
        load(path)
        sound = bool(_native())
    return {"faults": faults, "messages": messages, "counts": counts, "sound": sound}


def _native() -> list[str]:
    """Libraries of TVM, or code from memory, that this process has mapped."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sorted({name for line in maps for name in _NATIVE if name in line})


def _cli(context: Context, artifact: Path) -> Iterator[Check]:
    """What a user sees of it, through `verify` and `run`."""
    damaged = context.folder / "damaged.tvmcomp"
    data = bytearray(artifact.read_bytes())
    data[len(data) // 2] ^= 4
    damaged.write_bytes(data)
    output = context.folder / "damaged-output.npz"
    output.unlink(missing_ok=True)
    for verb, arguments in (
        ("verify", [str(damaged)]),
        ("inspect", [str(damaged)]),
        (
            "run",
            [
                str(damaged),
                "-i",
                str(context.calibration_file(context.net("resnet18"))),
                "-o",
                str(output),
            ],
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "tvmcomp", verb, *arguments],
            env=environment(), capture_output=True, text=True,
        )  # fmt: skip
        lines = done.stderr.strip().splitlines()
        ok = (
            done.returncode == 4
            and not done.stdout
            and len(lines) == 1
            and lines[0].startswith("error: ")
            and not output.exists()
        )
        yield holds(
            f"tvmcomp {verb} on a damaged file: exit 4, one line",
            ok,
            f"exit {done.returncode}: {lines}",
        )


def _run(context: Context) -> Iterator[Check]:
    artifact = context.compiled(context.net("resnet18"), "torch", "int8").path
    options = {
        "artifact": str(artifact),
        "truncations": context.scaled(_TRUNCATIONS),
        "flips": context.scaled(_FLIPS),
    }
    found = run_apart("acceptance.damage:measure", options)
    total = sum(found["counts"].values())
    many = ", ".join(f"{n} {kind}" for kind, n in found["counts"].items() if n > 1)
    yield figure("damaged files tried", total, many)
    faults = "; ".join(found["faults"][:20])
    yield holds("every one refused with one line before native code", not found["faults"], faults)
    yield holds("the sound file loads native code in the same process", found["sound"])
    for kind, message in found["messages"].items():
        yield figure(f"{kind}: what the user reads", message)
    yield from _cli(context, artifact)


ROW = Row(
    "damage",
    "truncated at 50 offsets, 500 bits flipped, wrong arch, wrong version, missing file, path with .., "
    "duplicate entries: each refused with one line before any native code is loaded",
    _run,
)
