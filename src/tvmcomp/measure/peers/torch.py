"""PyTorch as a peer: eager, under bf16 autocast, and through torch.compile; from a `.pt2` file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from tvmcomp.errors import TvmcompError
from tvmcomp.target.cpu import host_cpu

__all__ = ["open_autocast", "open_compiled", "open_eager"]

_BF16 = frozenset({"avx512bf16", "amx-bf16", "bf16"})


class _Module:
    """A module called on tensors that share memory with numpy's inputs, without autograd."""

    def __init__(
        self,
        module: Callable[..., Any],
        context: Callable[[], AbstractContextManager[Any]],
        settings: Mapping[str, Any],
    ) -> None:
        import torch
        from torch.utils import _pytree

        self._module = module
        self._context = context
        self._torch = torch
        self._leaves = _pytree.tree_leaves
        self.versions = {"torch": torch.__version__}
        self.settings = {
            **settings,
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "onednn": torch.backends.mkldnn.is_available(),
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        tensors = [self._torch.from_numpy(array) for array in inputs.values()]
        with self._torch.inference_mode(), self._context():
            outputs = self._leaves(self._module(*tensors))
        # numpy has no bfloat16.
        half = self._torch.bfloat16
        return [(out.float() if out.dtype == half else out).numpy() for out in outputs]


def open_eager(*, path: str, threads: int) -> _Module:
    """The program as it is, op by op."""
    return _Module(_load(path, threads), nullcontext, {"mode": "eager"})


def open_autocast(*, path: str, threads: int) -> _Module:
    """The program under `torch.autocast` to bf16, on processors that compute in it."""
    _require_bf16()
    module = _load(path, threads)
    return _Module(module, _autocast, {"mode": "eager, autocast to bf16"})


def open_compiled(
    *, path: str, threads: int, cache: str, backend: str, precision: str = "float32"
) -> _Module:
    """The program through `torch.compile` with frozen weights; its kernels are built at the first call.

    With `precision` "bf16" it is compiled under `torch.autocast`.
    """
    if precision == "bf16":
        _require_bf16()
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise TvmcompError("torch.compile needs a C++ compiler; install g++ or set CXX")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    os.environ["TORCHINDUCTOR_FREEZING"] = "1"
    # Its pool of compiling processes would stay alive beside the timed calls.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    module = _load(path, threads)
    import torch

    mode = "torch.compile, frozen weights"
    compiled = torch.compile(module, backend=backend)
    if precision == "bf16":
        about = {"mode": f"{mode}, autocast to bf16", "backend": backend}
        return _Module(compiled, _autocast, about)
    return _Module(compiled, nullcontext, {"mode": mode, "backend": backend})


def _require_bf16() -> None:
    if not host_cpu().features & _BF16:
        raise TvmcompError("this processor has no bf16 instructions; PyTorch would emulate them")


def _autocast() -> AbstractContextManager[Any]:
    import torch

    entered: AbstractContextManager[Any] = torch.autocast("cpu", dtype=torch.bfloat16)
    return entered


def _load(path: str, threads: int) -> Any:
    if Path(path).suffix != ".pt2":
        raise TvmcompError(
            "PyTorch cannot run ONNX; pass the .pt2 the model came from as its source"
        )
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    return torch.export.load(path).module()
