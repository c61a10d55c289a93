"""Loading: everything is checked before native code, and the bytes that were checked are loaded."""

from __future__ import annotations

import fcntl
import gc
import hashlib
import os
import random
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tvmcomp
from runtime import tiny
from tvmcomp.artifact import Payload, Tolerance, Variant, Versions, write_artifact
from tvmcomp.errors import (
    ArtifactError,
    IncompatibleHostError,
    TvmcompError,
    VerificationError,
)
from tvmcomp.runtime import Network, host, load, native, network, verify
from tvmcomp.target.cpu import host_cpu


class NativeCodeReached(Exception):
    """Raised in place of loading a library."""


@pytest.fixture
def no_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this test may get as far as native code."""

    def reached(*args: object) -> None:
        raise NativeCodeReached

    monkeypatch.setattr(native, "_tvm_ffi", reached)
    monkeypatch.setattr(native, "_load_library", reached)


def changed(payload: Payload, **variant: object) -> Payload:
    """`payload` with fields of its variant replaced."""
    function = payload.function
    new: Variant = replace(function.variants[0], **variant)
    manifest = replace(payload.manifest, functions=(replace(function, variants=(new,)),))
    return replace(payload, manifest=manifest)


def test_a_good_artifact_reaches_native_code(tiny_file: Path, no_native: None) -> None:
    with pytest.raises(NativeCodeReached):
        load(tiny_file)


def test_load_and_run(tiny_file: Path) -> None:
    given = tiny.inputs(5)
    with tvmcomp.load(tiny_file) as net:
        assert net.signature == tiny.SIGNATURE
        for name, array in net.run(given).items():
            np.testing.assert_array_equal(array, tiny.expected(**given)[name])


def test_damaged_files_never_reach_native_code(
    tiny_file: Path, tmp_path: Path, no_native: None
) -> None:
    data = tiny_file.read_bytes()
    rng = random.Random(4)
    damaged = [data[:size] for size in range(0, len(data), len(data) // 50 + 1)]
    for at in rng.sample(range(len(data)), 500):
        flipped = bytearray(data)
        flipped[at] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    path = tmp_path / "bad.tvmcomp"
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ArtifactError) as raised:
            load(path)
        assert "\n" not in str(raised.value)


def test_a_process_that_met_only_damage_has_no_native_code(
    tiny_file: Path, tmp_path: Path, run_script: Callable[..., str]
) -> None:
    code = """
import random, sys, tvmcomp
from tvmcomp.errors import ArtifactError
data, path, refused = open(sys.argv[1], "rb").read(), sys.argv[2], 0
rng = random.Random(5)
for _ in range(100):
    bad = bytearray(data)
    bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    open(path, "wb").write(bad[: rng.choice((len(bad), rng.randrange(len(bad))))])
    try:
        tvmcomp.load(path)
    except ArtifactError:
        refused += 1
maps = open("/proc/self/maps").read()
print(refused, "tvm_ffi" in sys.modules, "libtvm" in maps, "memfd" in maps)
"""
    assert run_script(code, tiny_file, tmp_path / "bad").split() == ["100", *["False"] * 3]


def test_missing_features(tiny_payload: Payload, no_native: None) -> None:
    lacking = changed(tiny_payload, required_features=("sse4.2", "avx9000", "amx-fp9"))
    with pytest.raises(IncompatibleHostError, match=r"CPU features avx9000, amx-fp9 ") as raised:
        Network.from_payload(lacking)
    assert raised.value.exit_code == 5
    with pytest.raises(NativeCodeReached):
        Network.from_payload(
            changed(tiny_payload, required_features=tuple(sorted(host_cpu().features)))
        )


@pytest.mark.parametrize(
    ("triple", "message"),
    [
        ("aarch64-linux-gnu", "compiled for aarch64-linux-gnu"),
        ("x86_64-pc-windows-msvc", "compiled for x86_64-pc-windows-msvc"),
        ("", "compiled for "),
    ],
)
def test_another_architecture(
    tiny_payload: Payload, no_native: None, triple: str, message: str
) -> None:
    with pytest.raises(IncompatibleHostError, match=message):
        Network.from_payload(changed(tiny_payload, triple=triple))


def test_a_library_for_another_architecture(tiny_payload: Payload, no_native: None) -> None:
    arm = bytearray(tiny_payload.lib)
    struct.pack_into("<H", arm, 18, 183)
    with pytest.raises(IncompatibleHostError, match="for machine 183, a shared object for x86_64"):
        Network.from_payload(replace(tiny_payload, lib=bytes(arm)))
    program = bytearray(tiny_payload.lib)
    struct.pack_into("<H", program, 16, 2)
    with pytest.raises(IncompatibleHostError, match="ELF type 2"):
        Network.from_payload(replace(tiny_payload, lib=bytes(program)))
    for junk in (b"", b"\x7fELF", b"\x7fELF\x01\x01" + bytes(100), b"MZ" + bytes(100)):
        with pytest.raises(ArtifactError, match="not a 64-bit ELF file"):
            Network.from_payload(replace(tiny_payload, lib=junk))


@pytest.mark.parametrize("library", ["tvm", "tvm_ffi"])
@pytest.mark.parametrize("version", ["0.26.0", "0.27.1", "1.0", "0.1.15", "", "nightly"])
def test_another_version(
    tiny_payload: Payload, no_native: None, library: str, version: str
) -> None:
    versions: Versions = replace(tiny_payload.manifest.versions, **{library: version})
    other = replace(tiny_payload, manifest=replace(tiny_payload.manifest, versions=versions))
    name = {"tvm": "TVM", "tvm_ffi": "tvm_ffi"}[library]
    with pytest.raises(IncompatibleHostError, match=f"made with {name} {version}, this host has"):
        Network.from_payload(other)


def test_a_post_release_is_the_same_release(tiny_payload: Payload, no_native: None) -> None:
    versions = replace(tiny_payload.manifest.versions, tvm="0.27.0.post9")
    other = replace(tiny_payload, manifest=replace(tiny_payload.manifest, versions=versions))
    with pytest.raises(NativeCodeReached):
        Network.from_payload(other)


def test_errors_name_the_file(tiny_payload: Payload, tmp_path: Path, no_native: None) -> None:
    path = tmp_path / "arm.tvmcomp"
    write_artifact(path, changed(tiny_payload, triple="aarch64-linux-gnu"))
    with pytest.raises(IncompatibleHostError, match=r"^/.*arm\.tvmcomp: compiled for"):
        load(path)


def test_no_runtime_library(
    tiny_payload: Payload, tmp_path: Path, run_script: Callable[..., str], tiny_file: Path
) -> None:
    code = """
import sys, tvmcomp
from tvmcomp.errors import IncompatibleHostError
try:
    tvmcomp.load(sys.argv[1])
except IncompatibleHostError as error:
    print(error)
"""
    wrong = run_script(code, tiny_file, TVMCOMP_RUNTIME_LIB=str(tmp_path / "nothing.so"))
    assert "nothing.so is not a file" in wrong
    copy = tmp_path / "libtvm_runtime.so"
    copy.write_bytes(b"\x7fELF")
    unknown = run_script(code, tiny_file, TVMCOMP_RUNTIME_LIB=str(copy))
    assert "the version of apache-tvm in" in unknown


def test_the_bytes_that_were_checked_are_loaded(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.tvmcomp"
    path.write_bytes(tiny_file.read_bytes())
    loaded = []
    seal = fcntl.fcntl

    def record(descriptor: int, command: int, argument: int) -> int:
        result = seal(descriptor, command, argument)
        content = os.pread(descriptor, 2**24, 0)
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(descriptor, b"x", 0)
        loaded.append(hashlib.sha256(content).hexdigest())
        return result

    def check_and_swap(payload: Payload, runtime: host.RuntimeFiles) -> None:
        path.write_bytes(b"replaced between the check and the load")
        host.check_host(payload, runtime)

    monkeypatch.setattr(native.fcntl, "fcntl", record)
    monkeypatch.setattr(network, "check_host", check_and_swap)
    with load(path) as net:
        assert loaded == [net.manifest.files["lib.so"].sha256]


def test_libraries_of_several_artifacts_stay_apart(tiny_payload: Payload) -> None:
    given = tiny.inputs(6)
    first = Network.from_payload(tiny_payload)
    nets = {2.0: first}
    for factor in (3.0, 0.5):
        # Each load writes its own library to a descriptor number the one before it used.
        nets[factor] = Network.from_payload(tiny.payload(factor))
    for factor, net in nets.items():
        got = net.run(given)
        np.testing.assert_array_equal(got["y"], tiny.expected(**given, factor=factor)["y"])
        net.close()


def test_loading_again_and_again_gives_memory_back(tiny_file: Path) -> None:
    def mapped() -> int:
        gc.collect()
        return Path("/proc/self/maps").read_text().count("memfd:tvmcomp")

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    load(tiny_file).close()
    before = mapped(), descriptors()
    for _ in range(20):
        load(tiny_file).close()
    assert (mapped(), descriptors()) == before


def test_golden_run(tiny_payload: Payload) -> None:
    outputs = dict(tiny_payload.golden_outputs)
    outputs["y"] = outputs["y"].copy()
    outputs["y"][3, 4] = np.nextafter(outputs["y"][3, 4], np.float32(np.inf))
    wrong = replace(tiny_payload, golden_outputs=outputs)
    with pytest.raises(VerificationError, match="output 'y' differs in 1 of 128") as raised:
        Network.from_payload(wrong)
    assert raised.value.exit_code == 4
    Network.from_payload(wrong, check_golden=False).close()
    function = replace(tiny_payload.function, golden=Tolerance(rtol=1e-5, atol=1e-6))
    near = replace(wrong, manifest=replace(wrong.manifest, functions=(function,)))
    Network.from_payload(near).close()
    outputs["y"][0, 0] += 1
    with pytest.raises(VerificationError, match="output 'y' differs"):
        Network.from_payload(near)


def test_verify(tiny_file: Path, tiny_payload: Payload, tmp_path: Path) -> None:
    report = verify(tiny_file)
    assert report.manifest.files["lib.so"].bytes == len(tiny_payload.lib)
    outputs = {**tiny_payload.golden_outputs, "n": tiny_payload.golden_outputs["n"] + np.int32(1)}
    path = tmp_path / "wrong.tvmcomp"
    write_artifact(path, replace(tiny_payload, golden_outputs=outputs))
    with pytest.raises(VerificationError, match=r"wrong\.tvmcomp: the golden run's output 'n'"):
        verify(path)


def test_a_library_that_does_not_load(tiny_payload: Payload) -> None:
    header_only = bytes(tiny_payload.lib)[:64] + bytes(4096)
    with pytest.raises(TvmcompError) as raised:
        Network.from_payload(replace(tiny_payload, lib=header_only))
    assert "lib.so cannot be loaded" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_refused_tiles_are_an_error_before_native_code(
    tiny_payload: Payload, no_native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        def syscall(self, *numbers: int) -> int:
            assert numbers == (158, 0x1023, 18)
            return -1

    monkeypatch.setattr(network, "check_host", lambda payload, runtime: None)
    monkeypatch.setattr(native.ctypes, "CDLL", lambda name, use_errno: Refusing())
    with pytest.raises(IncompatibleHostError, match="does not grant AMX tiles"):
        Network.from_payload(changed(tiny_payload, required_features=("amx-int8",)))
    with pytest.raises(NativeCodeReached):
        Network.from_payload(tiny_payload)


@pytest.mark.isa("amx-tile")
def test_tiles_are_asked_for_when_needed(
    tiny_payload: Payload, tiny_file: Path, tmp_path: Path, run_script: Callable[..., str]
) -> None:
    tiled = tmp_path / "tiled.tvmcomp"
    write_artifact(tiled, changed(tiny_payload, required_features=("amx-tile",)))
    code = """
import ctypes, sys, tvmcomp
def granted():
    permitted = ctypes.c_uint64()
    ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(permitted))
    return bool(permitted.value >> 18 & 1)
for path in sys.argv[1:]:
    tvmcomp.load(path).close()
    print(granted())
"""
    assert run_script(code, tiny_file, tiled).split() == ["False", "True"]


def test_neither_compiler_nor_torch(tiny_file: Path, run_script: Callable[..., str]) -> None:
    pytest.importorskip("torch", reason="without torch installed nothing could import it")
    code = """
import sys, numpy, tvmcomp
net = tvmcomp.load(sys.argv[1], threads=int(sys.argv[2]))
x, k = numpy.ones((8, 16), "f4"), numpy.ones((8, 16), "i4")
print(net(x, k, 1.0)[1][0, 0])
maps = open("/proc/self/maps").read()
print("torch" in sys.modules, "tvm" in sys.modules, "libtvm_compiler" in maps, "libtorch" in maps)
print("libtvm_runtime" in maps)
import importlib.util; print(importlib.util.find_spec("torch") is not None)
"""
    for threads in (1, 2):
        lines = run_script(code, tiny_file, threads).split()
        assert lines == ["2", *["False"] * 4, "True", "True"]


def test_beside_the_compiler_and_torch(tiny_file: Path, run_script: Callable[..., str]) -> None:
    pytest.importorskip("torch", reason="the order of imports with torch is the question")
    code = """
import sys, numpy, tvmcomp
for name in sys.argv[2].split():
    if name == "load":
        net = tvmcomp.load(sys.argv[1])
    else:
        __import__(name)
print(net(numpy.ones((8, 16), "f4"), numpy.ones((8, 16), "i4"), 1.0)[1][0, 0])
import torch
print(net(torch.ones(8, 16), torch.ones(8, 16, dtype=torch.int32), 1.0)[1][0, 0])
if "tvm" in sys.modules:
    print(sys.modules["tvm"].runtime.tensor(numpy.ones(3)).numpy().sum())
"""
    # The other order, tvm before load, is what every test in this process does.
    assert run_script(code, tiny_file, "load tvm").split() == ["2", "2", "3.0"]
    assert run_script(code, tiny_file, "torch load").split() == ["2", "2"]


def test_ready_soon(tiny_file: Path) -> None:
    load(tiny_file).close()
    begin = time.perf_counter()
    load(tiny_file).close()
    assert time.perf_counter() - begin < 1.0
