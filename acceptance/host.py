"""Where the figures come from: CPU, the flags that matter, versions, load, revision, date."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tvmcomp.target import detect, host_cpu

__all__ = ["ROOT", "describe", "load_average"]

ROOT = Path(__file__).resolve().parents[1]

# Every instruction set a kernel of ours or of a peer picks by.
_FLAGS = (
    "fma", "avx2", "avxvnni", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi",
    "avx512bf16", "amx-tile", "amx-int8", "amx-bf16",
)  # fmt: skip
_PACKAGES = (
    "tvmcomp", "apache-tvm", "apache-tvm-ffi", "numpy", "torch", "onnx", "onnxscript",
    "onnxruntime", "openvino", "nncf", "scikit-learn", "pillow",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """JSON-able facts of this machine and this checkout."""
    cpu, found = host_cpu(), detect()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": _git("rev-parse", "HEAD"),
        "uncommitted_changes": _git("status", "--porcelain", "--untracked-files=no") != "",
        "cpu": cpu.model,
        "cores": cpu.cores,
        "caches": {"l1d": cpu.caches.l1d, "l2": cpu.caches.l2, "l3": cpu.caches.l3},
        "flags": {flag: flag in cpu.features for flag in _FLAGS},
        "target": found.target.name,
        "decided_by": list(found.flags_that_decided),
        "system": f"{platform.system()} {platform.release()}",
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "load_average": load_average(),
    }


def load_average() -> list[float]:
    """Of the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
