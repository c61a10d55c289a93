"""The core's peak: multiply-accumulates per second on registers alone, from a few lines of C."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEAKS", "Peak", "measure_peaks"]

_CHAINS = 14  # independent sums, enough to hide the latency of one instruction


@dataclass(frozen=True)
class Peak:
    """One instruction: its features, registers, and multiply-accumulates per instruction."""

    name: str
    features: frozenset[str]
    register: str  # zmm or ymm
    instruction: str
    macs: int


PEAKS = (
    Peak("int8 vpdpbusd zmm", frozenset({"avx512vnni"}), "zmm", "vpdpbusd", 64),
    Peak("float32 vfmadd231ps zmm", frozenset({"avx512f"}), "zmm", "vfmadd231ps", 16),
    Peak("float32 vfmadd231ps ymm", frozenset({"avx2", "fma"}), "ymm", "vfmadd231ps", 8),
)

_SOURCE = """
#include <time.h>
double {name}(long rounds) {{
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    __asm__ volatile(
        "{zero}"
        "1:\\n\\t"
        "{body}"
        "dec %0\\n\\t"
        "jnz 1b\\n\\t"
        : "+r"(rounds) : : "cc", {clobbers});
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (end.tv_sec - begin.tv_sec) + 1e-9 * (end.tv_nsec - begin.tv_nsec);
}}
"""


def _function(peak: Peak, name: str) -> str:
    # The two sources stay zero: no sum ever overflows or becomes denormal.
    sources = f"%%{peak.register}15, %%{peak.register}14"
    zero = "".join(f"vpxor %%xmm{i}, %%xmm{i}, %%xmm{i}\\n\\t" for i in range(16))
    body = "".join(
        f"{peak.instruction} {sources}, %%{peak.register}{i}\\n\\t" for i in range(_CHAINS)
    )
    clobbers = ", ".join(f'"xmm{i}"' for i in range(16))
    return _SOURCE.format(name=name, zero=zero, body=body, clobbers=clobbers)


def measure_peaks(features: frozenset[str], repeats: int = 30) -> dict[str, float]:
    """Multiply-accumulates per second of each instruction this CPU has: the best of short runs."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("the peak needs a C compiler; install gcc")
    known = [peak for peak in PEAKS if peak.features <= features]
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "peak.c", Path(folder) / "peak.so"
        source.write_text("".join(_function(peak, f"peak{i}") for i, peak in enumerate(known)))
        subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True
        )
        loaded = ctypes.CDLL(str(library))
    found = {}
    for i, peak in enumerate(known):
        function = getattr(loaded, f"peak{i}")
        function.restype, function.argtypes = ctypes.c_double, (ctypes.c_long,)
        rounds = 200_000  # about 1 ms: short enough to fall between what else runs here
        function(20 * rounds)
        best = min(function(rounds) for _ in range(repeats))
        found[peak.name] = peak.macs * _CHAINS * rounds / best
    return found
