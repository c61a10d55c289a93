"""What this processor is and can do, read from the kernel; one table names its features."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["CPU_FLAGS", "FEATURES", "Caches", "HostCpu", "host_cpu", "parse_cpuinfo"]

# Linux' flag in /proc/cpuinfo -> our name, which is LLVM's. Per architecture, every feature LLVM may
# use on its own or through an intrinsic we emit; what only system code uses (pku, xsave) is left out.
CPU_FLAGS: dict[str, dict[str, str]] = {
    "x86_64": {
        "pni": "sse3",
        "ssse3": "ssse3",
        "sse4_1": "sse4.1",
        "sse4_2": "sse4.2",
        "sse4a": "sse4a",
        "popcnt": "popcnt",
        "abm": "lzcnt",
        "movbe": "movbe",
        "bmi1": "bmi",
        "bmi2": "bmi2",
        "adx": "adx",
        "aes": "aes",
        "pclmulqdq": "pclmul",
        "sha_ni": "sha",
        "3dnowprefetch": "prfchw",
        "avx": "avx",
        "f16c": "f16c",
        "fma": "fma",
        "avx2": "avx2",
        "gfni": "gfni",
        "vaes": "vaes",
        "vpclmulqdq": "vpclmulqdq",
        "avx_vnni": "avxvnni",
        "avx_ifma": "avxifma",
        "avx_vnni_int8": "avxvnniint8",
        "avx_ne_convert": "avxneconvert",
        "avx512f": "avx512f",
        "avx512cd": "avx512cd",
        "avx512bw": "avx512bw",
        "avx512dq": "avx512dq",
        "avx512vl": "avx512vl",
        "avx512ifma": "avx512ifma",
        "avx512vbmi": "avx512vbmi",
        "avx512_vbmi2": "avx512vbmi2",
        "avx512_vnni": "avx512vnni",
        "avx512_bitalg": "avx512bitalg",
        "avx512_vpopcntdq": "avx512vpopcntdq",
        "avx512_vp2intersect": "avx512vp2intersect",
        "avx512_bf16": "avx512bf16",
        "avx512_fp16": "avx512fp16",
        "amx_tile": "amx-tile",
        "amx_int8": "amx-int8",
        "amx_bf16": "amx-bf16",
        "amx_fp16": "amx-fp16",
        "amx_complex": "amx-complex",
    },
    "aarch64": {
        "fp": "fp-armv8",
        "asimd": "neon",
        "aes": "aes",
        "sha2": "sha2",
        "crc32": "crc",
        "atomics": "lse",
        "asimdrdm": "rdm",
        "asimdhp": "fullfp16",
        "asimddp": "dotprod",
        "lrcpc": "rcpc",
        "sve": "sve",
        "sve2": "sve2",
        "i8mm": "i8mm",
        "bf16": "bf16",
    },
}

FEATURES: dict[str, frozenset[str]] = {
    arch: frozenset(flags.values()) for arch, flags in CPU_FLAGS.items()
}

_CPUINFO = Path("/proc/cpuinfo")
_CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
_ARCH_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Caches:
    """Bytes of the caches one core sees; 0 where there is none or it is unknown."""

    l1d: int
    l2: int
    l3: int


@dataclass(frozen=True)
class HostCpu:
    """One machine: `features` in our names, `cores` this process may use."""

    arch: str
    vendor: str
    model: str
    features: frozenset[str]
    cores: int
    caches: Caches

    def fingerprint(self) -> dict[str, object]:
        """JSON-able facts for the provenance of a measurement or an artifact."""
        return {**asdict(self), "features": sorted(self.features)}


def parse_cpuinfo(text: str, arch: str) -> tuple[str, str, frozenset[str]]:
    """(vendor, model, features) of the first processor in the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    vendor = fields.get("vendor_id", fields.get("CPU implementer", "unknown"))
    model = fields.get("model name", fields.get("CPU part", "unknown"))
    flags = fields.get("flags", fields.get("Features", "")).split()
    known = CPU_FLAGS.get(arch, {})
    return vendor, model, frozenset(known[flag] for flag in flags if flag in known)


def host_cpu() -> HostCpu:
    """The machine this process runs on; a system without /proc/cpuinfo has no known features."""
    machine = platform.machine().lower()
    arch = _ARCH_ALIASES.get(machine, machine)
    text = _CPUINFO.read_text() if _CPUINFO.exists() else ""
    vendor, model, features = parse_cpuinfo(text, arch)
    return HostCpu(arch, vendor, model, features, _usable_cores(), _read_caches(_CACHE))


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read_caches(folder: Path) -> Caches:
    sizes = {"1": 0, "2": 0, "3": 0}
    for index in folder.glob("index*"):
        level, kind = ((index / name).read_text().strip() for name in ("level", "type"))
        size = index / "size"
        if kind != "Instruction" and level in sizes and size.exists():
            sizes[level] = _bytes(size.read_text().strip())
    return Caches(sizes["1"], sizes["2"], sizes["3"])


def _bytes(size: str) -> int:
    unit = {"K": 1 << 10, "M": 1 << 20}.get(size[-1:])
    return int(size[:-1]) * unit if unit else int(size)
