"""Run one kernel on arenas full of garbage and hold every byte of its output against the definition."""

from __future__ import annotations

import os

os.environ.setdefault("TVM_NUM_THREADS", "2")
os.environ.setdefault("TVM_BIND_THREADS", "0")

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tvm

from tvmcomp.compress.reference import compute_outputs
from tvmcomp.graph.layers import Layer, QParams, TensorSpec
from tvmcomp.kernels.kernel import SLACK, Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.vector import GENERIC, Isa

GUARD = 256
_CPUINFO = Path("/proc/cpuinfo")
_CPU = _CPUINFO.read_text() if _CPUINFO.exists() else ""


def _row(isa: Isa, mcpu: str, *flags: str) -> object:
    missing = [flag for flag in flags if flag not in _CPU]
    skip = pytest.mark.skipif(bool(missing), reason=f"this CPU lacks {missing}")
    return pytest.param((isa, mcpu), id=f"{isa.name}-{mcpu}{'-vbmi' * isa.vbmi}", marks=skip)


ROWS = [
    _row(
        Isa("avx512-vnni", 16, vnni=True, vbmi=True, fma=True, madd=True),
        "icelake-server",
        "avx512_vnni",
        "avx512vbmi",
    ),
    _row(Isa("avx512", 16, fma=True, madd=True), "skylake-avx512", "avx512bw"),
    _row(Isa("avx2", 8, fma=True, madd=True), "haswell", "avx2", "fma"),
    _row(GENERIC, "x86-64-v2", "sse4_2"),
]
every_isa = pytest.mark.parametrize("row", ROWS)


def spec(
    name: str, shape: Sequence[int], dtype: str = "uint8", scale: float = 0.05, zero: int = 3
) -> TensorSpec:
    qparams = (
        None if dtype in ("float32", "int32", "int64") else QParams(float(np.float32(scale)), zero)
    )
    return TensorSpec(name, tuple(shape), dtype, qparams)


def layout(tensor: TensorSpec, halo: int = 0, pad: int = 0) -> Layout:
    """Halo'd NHWC layout whose pitch is `pad` more than the channels; plain dense otherwise."""
    size = np.dtype(tensor.dtype).itemsize
    dense = Layout.dense(tensor.shape, size)
    if halo == 0 and pad == 0:
        return dense
    n, h, w, c = dense.batch, dense.height, dense.width, dense.channels
    return Layout(n, h, w, c, size, halo=halo, pitch=c + pad)


def random_values(rng: np.random.Generator, tensor: TensorSpec) -> np.ndarray:
    """Full-range codes, or normal float32."""
    if tensor.dtype == "float32":
        return rng.standard_normal(tensor.shape).astype(np.float32)
    info = np.iinfo(tensor.dtype)
    return rng.integers(info.min, info.max, tensor.shape, endpoint=True).astype(tensor.dtype)


# Equal keys are equal functions (tests/schedule/test_keys.py).
_COMPILED: dict[tuple[str, str], Callable[..., None]] = {}


def compile_kernel(kernel: Kernel, mcpu: str) -> Callable[..., None]:
    known = _COMPILED.get((kernel.key, mcpu))
    if known is not None:
        return known
    target = tvm.target.Target({"kind": "llvm", "mcpu": mcpu, "num-cores": 2})
    module = tvm.IRModule({"main": kernel.func.with_attr("global_symbol", "main")})
    return _COMPILED.setdefault((kernel.key, mcpu), tvm.tirx.build(module, target=target)["main"])


def _garbage(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random bytes with float NaNs and infinities among them."""
    data = rng.integers(0, 256, -(-count // 4) * 4).astype(np.uint8)
    words = data.view(np.uint32)
    words[::3] = 0x7FC00000
    words[1::7] = 0xFF800000
    return data[:count].copy()


def _halo_bytes(tensor: TensorSpec) -> int:
    return 0 if tensor.qparams is None else tensor.qparams.zero_point & 255


def place(rng: np.random.Generator, tensor: TensorSpec, where: Layout, value: np.ndarray):
    """Arena bytes holding `value`, its halo written as a producer does, garbage everywhere else."""
    arena = _garbage(rng, 64 + where.nbytes + SLACK)
    grid = _grid(arena[64 : 64 + where.nbytes], where)
    halo, size = where.halo, where.itemsize
    inside = np.zeros(grid.shape[:3], bool)
    inside[:, halo : halo + where.height, halo : halo + where.width] = True
    grid[~inside] = _halo_bytes(tensor)
    raw = np.ascontiguousarray(value).view(np.uint8)
    raw = raw.reshape(where.batch, where.height, where.width, where.channels * size)
    grid[:, halo : halo + where.height, halo : halo + where.width, : where.channels * size] = raw
    return arena


def _grid(data: np.ndarray, where: Layout) -> np.ndarray:
    return data.reshape(
        where.batch, where.height + 2 * where.halo, where.width + 2 * where.halo, where.pixel
    )


def run_kernel(
    kernel: Kernel,
    mcpu: str,
    layer: Layer,
    tensors: dict[str, TensorSpec],
    layouts: dict[str, Layout],
    arrays: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """The output array; checks the halo and the guard bytes on both sides of the tensor."""
    return run_outputs(kernel, mcpu, layer, tensors, layouts, arrays, rng)[0]


def run_outputs(
    kernel: Kernel,
    mcpu: str,
    layer: Layer,
    tensors: dict[str, TensorSpec],
    layouts: dict[str, Layout],
    arrays: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """The output array and those of the extra outputs, likewise.

    A halo of codes without qparams is the zero point the kernel itself has found, its last output.
    """
    func = compile_kernel(kernel, mcpu)
    arguments: list[object] = []
    for name, array in zip(layer.inputs, arrays, strict=True):
        arguments += [
            tvm.runtime.tensor(place(rng, tensors[name], layouts[name], array)),
            64,
        ]
    if kernel.constants is not None:
        blob = np.concatenate([_garbage(rng, 64), kernel.constants, _garbage(rng, SLACK)])
        arguments += [tvm.runtime.tensor(blob), 64]
    names = (layer.output, *getattr(layer, "extra_outputs", ()))
    before = [_garbage(rng, GUARD + layouts[name].nbytes + GUARD) for name in names]
    buffers = [tvm.runtime.tensor(data) for data in before]
    for buffer in buffers:
        arguments += [buffer, GUARD]
    func(*arguments)
    results: list[np.ndarray] = []
    halos = [_halo_bytes(tensors[name]) for name in names]
    for name, start, buffer in reversed(list(zip(names, before, buffers, strict=True))):
        result, border = _read(start, buffer.numpy(), tensors[name], layouts[name])
        results.insert(0, result)
        if len(names) > 1:
            halos[0] = int(results[-1].reshape(-1)[0]) & 255
        assert (border == halos[names.index(name)]).all(), "halo differs from the zero point"
    return results


def _read(
    before: np.ndarray, after: np.ndarray, tensor: TensorSpec, where: Layout
) -> tuple[np.ndarray, np.ndarray]:
    """A tensor and the bytes of its halo, from memory that was `before` the kernel ran."""
    assert np.array_equal(after[:GUARD], before[:GUARD]), "wrote before the tensor"
    assert np.array_equal(after[-GUARD:], before[-GUARD:]), "wrote past the tensor"
    grid = _grid(after[GUARD:-GUARD], where)
    halo, used = where.halo, where.channels * where.itemsize
    inside = grid[:, halo : halo + where.height, halo : halo + where.width, :used]
    border = np.ones(grid.shape[:3], bool)
    border[:, halo : halo + where.height, halo : halo + where.width] = False
    data = np.ascontiguousarray(inside).view(tensor.dtype).reshape(tensor.shape)
    return data, grid[border]


def check(
    build: Callable[..., Kernel | None],
    row: tuple[Isa, str],
    layer: Layer,
    tensors: dict[str, TensorSpec],
    layouts: dict[str, Layout],
    seed: int = 0,
    arrays: Sequence[np.ndarray] | None = None,
    rtol: float = 0.0,
) -> np.ndarray:
    """Build, compile, run and compare with the definition: exactly, or to `rtol` of the largest value."""
    isa, mcpu = row
    rng = np.random.default_rng(seed)
    kernel = build(layer, tensors, layouts, isa)
    assert kernel is not None, "the generator refused this layer"
    if arrays is None:
        arrays = [random_values(rng, tensors[name]) for name in layer.inputs]
    got = run_outputs(kernel, mcpu, layer, tensors, layouts, arrays, rng)
    want = compute_outputs(layer, tensors, arrays)
    if rtol:
        assert np.abs(got[0] - want[0]).max() <= rtol * np.abs(want[0]).max()
    else:
        for mine, defined in zip(got, want, strict=True):
            np.testing.assert_array_equal(mine, defined)
    return got[0]
