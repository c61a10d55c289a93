"""All that touches native code: TVM's runtime library, an artifact's library, its threads."""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import itertools
import os
import platform
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from tvmcomp.artifact import Payload
from tvmcomp.errors import ArtifactError, IncompatibleHostError
from tvmcomp.runtime.arrays import ALIGNMENT, aligned_empty, is_direct
from tvmcomp.runtime.host import RuntimeFiles

__all__ = ["Executor", "Program", "set_threads"]

_CPU = 1
_POOLED_ALLOCATOR = 2
_BIG_CORES = 1
_ARCH_REQ_XCOMP_PERM = 0x1023
_XFEATURE_XTILEDATA = 18
_X86_SYS_ARCH_PRCTL = 158

_load_lock = threading.Lock()
_load_numbers = itertools.count(1)


class _TorchHidden:
    """An import finder: for this thread torch is not there. `tvm_ffi` imports it where it can."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if name == "torch" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("torch is hidden while tvm_ffi is imported", name="torch")
        return None


def _tvm_ffi(runtime: RuntimeFiles) -> Any:
    """`tvm_ffi` with TVM's runtime registered in it, both loaded at most once."""
    with _load_lock:
        # TVM would pin the calling thread and its pool to cores of its own choice.
        os.environ.setdefault("TVM_BIND_THREADS", "0")
        if "tvm_ffi" not in sys.modules:
            hidden = _TorchHidden()
            sys.meta_path.insert(0, hidden)
            try:
                importlib.import_module("tvm_ffi")
            except ImportError as error:
                raise IncompatibleHostError(
                    f"tvm_ffi cannot be imported ({error}); use the Python version it was made for"
                ) from None
            finally:
                sys.meta_path.remove(hidden)
        ffi = importlib.import_module("tvm_ffi")
        if ffi.get_global_func("runtime.config_threadpool", allow_missing=True) is None:
            ctypes.CDLL(str(runtime.library), ctypes.RTLD_GLOBAL)
        return ffi


def set_threads(ffi: Any, count: int) -> None:
    """Let kernels called from this thread use `count` threads, this one included.

    TVM keeps one pool per calling thread. It is made at the first parallel kernel or, as here, with
    as many workers as the CPU list has entries; with one entry kernels run inline and no pool is
    used, even if the thread has a larger one from earlier.
    """
    ffi.get_global_func("runtime.config_threadpool")(_BIG_CORES, count, ["0"] * count)


class Program:
    """An artifact's library and weights, loaded once and shared by its executors."""

    def __init__(self, payload: Payload, runtime: RuntimeFiles) -> None:
        self.function = payload.function
        self.variant = self.function.variants[0]
        if any(name.startswith("amx") for name in self.variant.required_features):
            _request_amx()
        self.ffi = _tvm_ffi(runtime)
        self.module = _load_library(self.ffi, payload.lib)
        weights = payload.weights
        if not is_direct(weights):
            weights = aligned_empty(weights.shape, weights.dtype)
            weights[...] = payload.weights
        self.weights = self.tensor(weights)

    def tensor(self, array: np.ndarray) -> Any:
        """`array` as a tensor on the same memory; the caller has made sure that kernels may use it."""
        return self.ffi.from_dlpack(array, require_alignment=ALIGNMENT, require_contiguous=True)


class Executor:
    """One virtual machine with its arena; used by one thread at a time.

    instrument: called with (function, its name, whether before the call, result, arguments...)
                around everything the machine calls.
    """

    def __init__(self, program: Program, instrument: Callable[..., None] | None = None) -> None:
        self._program = program
        machine = program.module["vm_load_executable"]()
        machine["vm_initialization"](_CPU, 0, _POOLED_ALLOCATOR)
        if instrument is not None:
            machine["set_instrument"](program.ffi.convert_func(instrument))
        self._entry = machine[program.variant.entry]
        arena = aligned_empty((program.variant.arena_bytes,), np.dtype(np.uint8))
        arena[...] = 0
        self._arena = program.tensor(arena)

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Compute `outputs` from `inputs`, all direct (see `arrays.is_direct`) and of the signature."""
        tensor = self._program.tensor
        self._entry(*map(tensor, inputs), *map(tensor, outputs), self._program.weights, self._arena)


def _load_library(ffi: Any, lib: bytes | bytearray | memoryview) -> Any:
    """Load exactly these bytes: they go into an anonymous sealed file that nobody else can open."""
    try:
        descriptor = os.memfd_create("tvmcomp", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise IncompatibleHostError(
            f"this system refuses anonymous files ({error.strerror}); allow memfd_create"
        ) from None
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(lib)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        # The loader returns an already loaded library for a path it has seen, whatever the path now
        # leads to, and descriptor numbers come again: spell each path differently.
        number = bin(next(_load_numbers))[2:]
        spelling = "".join("./" if bit == "1" else "/" for bit in number)
        path = f"/proc/self/fd/{spelling}{descriptor}"
        return ffi.get_global_func("ffi.Module.load_from_file.so")(path, "so")
    except RuntimeError as error:
        raise ArtifactError(
            f"lib.so cannot be loaded ({str(error).splitlines()[-1]}); compile the model again"
        ) from None
    finally:
        os.close(descriptor)


def _request_amx() -> None:
    if platform.machine() != "x86_64":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_X86_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) != 0:
        raise IncompatibleHostError(
            f"this system does not grant AMX tiles ({os.strerror(ctypes.get_errno())}); "
            "compile for a target without AMX"
        )
