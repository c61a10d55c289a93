"""Detection on processors we do not have: feature sets in, descriptor out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tvmcomp.errors import TargetError
from tvmcomp.target import HostCpu, Target, detect
from tvmcomp.target.cpu import FEATURES, Caches

CACHES = Caches(48 << 10, 2 << 20, 32 << 20)


def machine(like: str, vendor: str = "GenuineIntel", *, less: tuple[str, ...] = ()) -> HostCpu:
    """A machine with the features of a descriptor, without `less`."""
    target = Target.load(like)
    features = target.features - set(less)
    return HostCpu(target.arch, vendor, "a machine", features, cores=6, caches=CACHES)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (machine("x86-avx2"), "x86-avx2"),
        (machine("x86-avx512-vnni"), "x86-avx512-vnni"),
        (machine("x86-sapphirerapids"), "x86-sapphirerapids"),
        (machine("x86-sapphirerapids", less=("amx-tile", "amx-int8", "amx-bf16")), "x86-avx512-vnni"),
        (machine("x86-avx512-vnni", less=("avx512vnni",)), "x86-avx2"),
        (machine("x86-zen4", "AuthenticAMD"), "x86-zen4"),
        (machine("x86-zen4", "AuthenticAMD", less=("avx512bf16",)), "x86-avx512-vnni"),
        (machine("x86-zen4", "GenuineIntel"), "x86-avx512-vnni"),
        (machine("x86-avx2", "AuthenticAMD"), "x86-avx2"),
        (machine("arm-cortex-a72"), "arm-cortex-a72"),
        (machine("arm-cortex-a76"), "arm-cortex-a76"),
    ],
)  # fmt: skip
def test_best_descriptor(host: HostCpu, name: str) -> None:
    assert detect(host).target.name == name


def test_flags_are_those_of_cpuinfo() -> None:
    found = detect(machine("x86-avx512-vnni"))
    assert found.flags_that_decided == (
        "avx512f",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512_vnni",
    )
    assert found.next_better == "x86-sapphirerapids"
    assert found.missing_for_next_better == ("avx512_bf16", "amx_tile", "amx_int8")


def test_the_best_has_nothing_better() -> None:
    found = detect(machine("x86-sapphirerapids"))
    assert found.flags_that_decided == ("avx512_bf16", "amx_tile", "amx_int8")
    assert (found.next_better, found.missing_for_next_better) == (None, ())


def test_narrowed_target_is_the_machine() -> None:
    host = machine("x86-sapphirerapids", less=("amx-tile", "amx-int8", "amx-bf16", "adx"))
    target = detect(host).narrowed()
    assert target.name == "x86-avx512-vnni"
    assert target.features == host.features
    assert (target.cores, target.caches) == (6, CACHES)
    assert {"+avx512fp16", "+avx512bf16", "-adx"} <= set(target.mattr)
    assert not any("amx" in item for item in target.mattr)
    target.tvm_target()  # raises unless LLVM agrees with every feature


def test_narrowing_takes_back_what_the_descriptor_removed() -> None:
    a72 = machine("arm-cortex-a72")
    target = detect(replace(a72, features=a72.features | {"aes"})).narrowed()
    assert target.mattr == ("-sha2", "+aes")
    target.tvm_target()


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (machine("x86-avx2", less=("avx2",)), "lacks avx2, which the least descriptor 'x86-avx2'"),
        (HostCpu("riscv64", "v", "m", frozenset(), 1, CACHES), "no descriptor covers .* 'riscv64'"),
    ],
)
def test_no_descriptor_fits(host: HostCpu, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        detect(host)


def test_this_machine_is_detected() -> None:
    found = detect()
    assert found.target.detected_by <= found.host.features
    assert Target.load("host").to_dict() == found.narrowed().to_dict()


@pytest.mark.parametrize("name", Target.names())
def test_deciding_features_are_features(name: str) -> None:
    target = Target.load(name)
    assert target.detected_by <= target.features <= FEATURES.get(target.arch, frozenset())
    assert bool(target.detected_by) == (target.kind == "llvm")
