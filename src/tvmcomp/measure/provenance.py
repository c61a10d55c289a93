"""Where a figure comes from: the device, the clock, the versions, the load, and the data it was taken on."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tvmcomp.target.cpu import host_cpu

__all__ = ["InputInfo", "clock", "describe_inputs", "device", "load_average", "versions"]

_GOVERNOR = Path("devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CLOCKSOURCE = Path("devices/system/clocksource/clocksource0/current_clocksource")
_PACKAGES = ("numpy", "apache-tvm", "apache-tvm-ffi")


@dataclass(frozen=True)
class InputInfo:
    """The data a figure was taken on: sha256 of names, types and bytes, and what it is in words."""

    digest: str
    description: str
    tensors: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "digest": self.digest,
            "description": self.description,
            "tensors": dict(self.tensors),
        }


def describe_inputs(inputs: Mapping[str, np.ndarray], description: str) -> InputInfo:
    """Digest and types of `inputs`, with the caller's words for what they are."""
    digest = hashlib.sha256()
    tensors: dict[str, str] = {}
    for name, array in inputs.items():
        tensors[name] = f"{array.dtype}[{','.join(map(str, array.shape))}]"
        digest.update(f"{name}:{tensors[name]};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return InputInfo(f"sha256:{digest.hexdigest()}", description, tensors)


def device(sysfs: Path = Path("/sys")) -> dict[str, Any]:
    """This machine: processor, features, caches, frequency governor (null where it is not shown)."""
    return {
        **host_cpu().fingerprint(),
        "governor": _read(sysfs / _GOVERNOR),
        "system": f"{platform.system()} {platform.release()}",
    }


def clock(sysfs: Path = Path("/sys")) -> dict[str, Any]:
    """The clock that times calls, its resolution, and the kernel's source behind it."""
    info = time.get_clock_info("perf_counter")
    return {
        "name": "perf_counter_ns",
        "implementation": info.implementation,
        "resolution_ns": info.resolution * 1e9,
        "source": _read(sysfs / _CLOCKSOURCE),
    }


def versions() -> dict[str, str]:
    """Versions of tvmcomp, Python and the packages that decide speed, without importing them."""
    # Read here, not at the top: the package's version is the only thing needed from it.
    from tvmcomp import __version__

    found = {"tvmcomp": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def load_average() -> tuple[float, float, float] | None:
    """Load of the last 1, 5 and 15 minutes; None where the system keeps none."""
    try:
        return os.getloadavg()
    except OSError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
