"""Whether this machine and its runtime libraries can run an artifact, without native code."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from tvmcomp.artifact import Payload, Versions
from tvmcomp.errors import ArtifactError, IncompatibleHostError
from tvmcomp.target.cpu import host_cpu

__all__ = [
    "BUNDLE_FOLDER",
    "BUNDLE_VERSIONS",
    "RUNTIME_LIB_VARIABLE",
    "RuntimeFiles",
    "check_host",
    "check_machine",
    "check_versions",
    "find_runtime",
]

RUNTIME_LIB_VARIABLE = "TVMCOMP_RUNTIME_LIB"
LIBRARY = "libtvm_runtime.so"
BUNDLE_FOLDER = "_bundle"
BUNDLE_VERSIONS = "versions.json"

_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
_RELEASE = re.compile(r"\d+(\.\d+)*")


@dataclass(frozen=True)
class RuntimeFiles:
    """TVM's runtime library, the `tvm_ffi` package it belongs to, and their versions."""

    library: Path
    ffi_package: Path
    tvm: str
    tvm_ffi: str


def find_runtime() -> RuntimeFiles:
    """The runtime library: already loaded, in a bundle, in TVMCOMP_RUNTIME_LIB, or in the wheel."""
    library = _find_library()
    spec = importlib.util.find_spec("tvm_ffi")
    if spec is None or spec.origin is None:
        raise IncompatibleHostError("tvm_ffi is not installed; pip install apache-tvm-ffi")
    package = Path(spec.origin).parent
    beside = library.with_name(BUNDLE_VERSIONS)
    if beside.is_file():
        versions = json.loads(beside.read_text(encoding="utf-8"))
        return RuntimeFiles(library, package, versions["tvm"], versions["tvm_ffi"])
    return RuntimeFiles(
        library,
        package,
        _distribution_version("apache-tvm", library.parent.parent.parent),
        _distribution_version("apache-tvm-ffi", package.parent),
    )


def check_host(payload: Payload, runtime: RuntimeFiles) -> None:
    """Raise unless versions, architecture and CPU features of this host are what `payload` needs."""
    check_versions(payload.manifest.versions, runtime)
    check_machine(payload)
    variant = payload.function.variants[0]
    cpu = host_cpu()
    missing = [name for name in variant.required_features if name not in cpu.features]
    if missing:
        raise IncompatibleHostError(
            f"needs the CPU features {', '.join(missing)} (target {variant.target}), this CPU "
            f"({cpu.model}) lacks them; compile with --target host on this machine"
        )


def check_versions(made: Versions, runtime: RuntimeFiles) -> None:
    """Raise unless TVM and tvm_ffi here are of the releases the artifact was made with."""
    # A virtual machine's bytecode and the calling convention hold for one release of each library.
    for name, want, got in (
        ("TVM", made.tvm, runtime.tvm),
        ("tvm_ffi", made.tvm_ffi, runtime.tvm_ffi),
    ):
        if _release(want) != _release(got):
            raise IncompatibleHostError(
                f"made with {name} {want}, this host has {got}; install {name} {want} or compile again"
            )


def check_machine(payload: Payload) -> None:
    """Raise unless the code is for this host's architecture and system, by name and by ELF header."""
    variant = payload.function.variants[0]
    arch, _, system = variant.triple.partition("-")
    host = host_cpu().arch
    if host != arch or "linux" not in system:
        raise IncompatibleHostError(
            f"compiled for {variant.triple} (target {variant.target}), this host is {host} Linux; "
            "compile for this host or run it on its target"
        )
    _check_elf(payload, arch)


def _release(version: str) -> str:
    match = _RELEASE.match(version)
    return match.group() if match else version


def _check_elf(payload: Payload, arch: str) -> None:
    header = bytes(memoryview(payload.lib)[:20])
    # 64 bits, little endian, shared object, and the machine the manifest promises.
    if len(header) < 20 or header[:6] != b"\x7fELF\x02\x01":
        raise ArtifactError("lib.so is not a 64-bit ELF file; compile the model again")
    kind, machine = struct.unpack_from("<2H", header, 16)
    if kind != 3 or machine != _ELF_MACHINES.get(arch):
        raise IncompatibleHostError(
            f"lib.so is ELF type {kind} for machine {machine}, a shared object for {arch} is needed; "
            "compile the model again"
        )


def _find_library() -> Path:
    loaded = _loaded_library()
    if loaded is not None:
        return loaded
    bundled = Path(__file__).parent.parent / BUNDLE_FOLDER / LIBRARY
    if bundled.is_file():
        return bundled
    asked = os.environ.get(RUNTIME_LIB_VARIABLE)
    if asked:
        if not Path(asked).is_file():
            raise IncompatibleHostError(
                f"{RUNTIME_LIB_VARIABLE}={asked} is not a file; point it at {LIBRARY} or unset it"
            )
        return Path(asked).resolve()
    spec = importlib.util.find_spec("tvm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        library = Path(folder) / "lib" / LIBRARY
        if library.is_file():
            return library
    raise IncompatibleHostError(
        f"{LIBRARY} is not on this host; pip install apache-tvm, set {RUNTIME_LIB_VARIABLE}, "
        "or use a folder made by `tvmcomp bundle`"
    )


def _loaded_library() -> Path | None:
    # A second copy would register every global function again, so a loaded one is always the one.
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        path = line[line.find("/") :] if "/" in line else ""
        if path.endswith("/" + LIBRARY):
            return Path(path)
    return None


def _distribution_version(name: str, site: Path) -> str:
    for distribution in importlib.metadata.distributions(name=name, path=[str(site)]):
        return distribution.version
    raise IncompatibleHostError(
        f"the version of {name} in {site} is unknown; install it with pip or use `tvmcomp bundle`"
    )
