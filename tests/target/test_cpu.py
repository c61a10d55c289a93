"""Reading the processor: flags to features, caches, cores."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tvmcomp.target import host_cpu
from tvmcomp.target.cpu import CPU_FLAGS, FEATURES, Caches, _read_caches, parse_cpuinfo

X86_TEXT = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9354 32-Core Processor
flags\t\t: fpu sse4_2 avx2 avx512_vnni pku not_a_flag

processor\t: 1
vendor_id\t: AuthenticAMD
flags\t\t: fpu
"""
ARM_TEXT = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""


def test_x86_flags_become_features() -> None:
    vendor, model, features = parse_cpuinfo(X86_TEXT, "x86_64")
    assert (vendor, model) == ("AuthenticAMD", "AMD EPYC 9354 32-Core Processor")
    assert features == {"sse4.2", "avx2", "avx512vnni"}


def test_arm_flags_become_features() -> None:
    vendor, model, features = parse_cpuinfo(ARM_TEXT, "aarch64")
    assert (vendor, model) == ("0x41", "0xd0b")
    assert features == {"fp-armv8", "neon", "crc", "dotprod"}


@pytest.mark.parametrize(("text", "arch"), [("", "x86_64"), (X86_TEXT, "riscv64")])
def test_nothing_known_means_no_features(text: str, arch: str) -> None:
    assert parse_cpuinfo(text, arch)[2] == frozenset()


@pytest.mark.parametrize("arch", sorted(CPU_FLAGS))
def test_one_name_per_flag(arch: str) -> None:
    assert len(FEATURES[arch]) == len(CPU_FLAGS[arch])


def write_cache(folder: Path, index: int, level: str, kind: str, size: str) -> None:
    entry = folder / f"index{index}"
    entry.mkdir()
    for name, value in (("level", level), ("type", kind), ("size", size)):
        (entry / name).write_text(f"{value}\n")


def test_caches_are_read_in_bytes(tmp_path: Path) -> None:
    write_cache(tmp_path, 0, "1", "Data", "48K")
    write_cache(tmp_path, 1, "1", "Instruction", "32K")
    write_cache(tmp_path, 2, "2", "Unified", "2M")
    write_cache(tmp_path, 3, "3", "Unified", "4096")
    assert _read_caches(tmp_path) == Caches(l1d=48 << 10, l2=2 << 20, l3=4096)


def test_absent_caches_are_zero(tmp_path: Path) -> None:
    assert _read_caches(tmp_path / "nothing") == Caches(0, 0, 0)


def test_host_is_read() -> None:
    host = host_cpu()
    assert host.arch in ("x86_64", "aarch64")
    assert host.features
    assert host.cores == len(os.sched_getaffinity(0))


def test_fingerprint_is_json() -> None:
    fingerprint = json.loads(json.dumps(host_cpu().fingerprint()))
    assert set(fingerprint) == {"arch", "vendor", "model", "features", "cores", "caches"}
    assert fingerprint["features"] == sorted(host_cpu().features)
