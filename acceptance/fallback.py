"""Fallback kernels on ResNet-50's shapes as a share of the core's peak, measured in the same process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from acceptance.apart import run_apart
from acceptance.context import Context
from acceptance.row import Check, NotRun, Row, at_least, figure

__all__ = ["ROW", "measure"]

_LIMIT = 0.10
# The weight range of the descriptor each row serves.
_WEIGHTS = {"avx512": (-127, 128), "avx2": (-64, 64), "generic": (-127, 128)}
_SKYLAKE = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx2", "fma"})
# What a layer can fall to: the rows of the narrower descriptors, and TVM's functions, which are float32 (every
# integer convolution is claimed by a row). The others are told beside them.
_JUDGED = ("row avx2, uint8", "row avx2, float32", "default schedule, float32")


@dataclass(frozen=True)
class Shape:
    """size: of the square input; occurrences: in ResNet-50."""

    size: int
    inputs: int
    outputs: int
    kernel: int
    occurrences: int


# One of each kind of layer that carries most of the work: 1x1 down and up, 3x3, large and small images.
_SHAPES = (
    Shape(56, 64, 64, 3, 3),
    Shape(56, 64, 256, 1, 4),
    Shape(28, 128, 128, 3, 3),
    Shape(14, 1024, 256, 1, 5),
    Shape(14, 256, 256, 3, 5),
    Shape(7, 512, 2048, 1, 3),
)


def measure(trials: float) -> dict[str, Any]:
    """Peaks, and seconds and multiply-accumulates per fallback and dtype; for a process of one thread."""
    from acceptance.peak import measure_peaks
    from tvmcomp.kernels.vector import GENERIC, isa_for
    from tvmcomp.target import Target, host_cpu

    features = host_cpu().features
    rows = [
        ("row avx512, no VNNI", isa_for(_SKYLAKE), "skylake-avx512", {"avx512f"}),
        ("row avx2", isa_for(Target.load("x86-avx2").features), "haswell", {"avx2", "fma"}),
        ("row generic", GENERIC, "x86-64-v2", {"sse4.2"}),
    ]
    shapes = _SHAPES[: max(1, round(trials * len(_SHAPES)))]
    found: dict[str, Any] = {"peaks": measure_peaks(features), "kernels": []}
    for dtype in ("uint8", "float32"):
        for name, isa, mcpu, needed in rows:
            if needed <= features:
                timed = [_timed(_row_kernel(s, dtype, isa, mcpu), s) for s in shapes]
                found["kernels"].append({"name": name, "dtype": dtype, "shapes": timed})
        timed = [_timed(_default(s, dtype), s) for s in shapes]
        found["kernels"].append({"name": "default schedule", "dtype": dtype, "shapes": timed})
    return found


def _timed(kernel: tuple[Any, list[Any]], shape: Shape) -> dict[str, Any]:
    import tvm

    function, arguments = kernel
    timer = function.time_evaluator("main", tvm.cpu(), number=1, repeat=3)
    once = min(timer(*arguments).results)
    # Short runs, so that some fall between what else this machine does.
    timer = function.time_evaluator(
        "main", tvm.cpu(), number=1 + int(1e-3 / once), repeat=3 + int(0.2 / max(once, 1e-3))
    )
    macs = shape.size**2 * shape.outputs * shape.inputs * shape.kernel**2
    text = (
        f"{shape.kernel}x{shape.kernel} {shape.size}x{shape.size} {shape.inputs}->{shape.outputs}"
    )
    seconds = min(timer(*arguments).results)
    return {"shape": text, "macs": macs, "seconds": seconds, "occurrences": shape.occurrences}


def _row_kernel(shape: Shape, dtype: str, isa: Any, mcpu: str) -> tuple[Any, list[Any]]:
    import tvm

    from tvmcomp.graph.layers import FloatConv, IntConv, QParams, TensorSpec
    from tvmcomp.kernels.conv import build_conv
    from tvmcomp.kernels.kernel import SLACK
    from tvmcomp.kernels.layout import Layout

    rng, itemsize, pad = np.random.default_rng(0), np.dtype(dtype).itemsize, shape.kernel // 2
    qparams = None if dtype == "float32" else QParams(0.05, 3)
    x = TensorSpec("x", (1, shape.size, shape.size, shape.inputs), dtype, qparams)
    y = TensorSpec("y", (1, shape.size, shape.size, shape.outputs), dtype, qparams)
    n, h, w, c = x.shape
    layouts = {
        "x": Layout(n, h, w, c, itemsize, halo=pad, pitch=c),
        "y": Layout.dense(y.shape, itemsize),
    }
    weight = (shape.outputs, shape.kernel, shape.kernel, shape.inputs)
    common: dict[str, Any] = {"name": "conv", "inputs": ("x",), "output": "y", "pads": (pad,) * 4}
    ones = np.ones(shape.outputs, np.float32)
    layer: Any
    if dtype == "float32":
        layer = FloatConv(
            weight=rng.standard_normal(weight).astype(np.float32), bias=ones, **common
        )
    else:
        codes = rng.integers(*_WEIGHTS[isa.name], weight).astype(np.int8)
        layer = IntConv(weight=codes, multiplier=ones * 1e-4, bias=ones, low=0, high=255, **common)
    kernel = build_conv(layer, {"x": x, "y": y}, layouts, isa)
    if kernel is None or kernel.constants is None:
        raise RuntimeError(f"the {isa.name} row refuses {shape}")
    arguments: list[Any] = []
    for data in (
        _values(rng, layouts["x"].nbytes // itemsize, dtype).view(np.uint8),
        kernel.constants,
        np.zeros(layouts["y"].nbytes, np.uint8),
    ):
        padded = np.concatenate([data, np.zeros(SLACK, np.uint8)])
        arguments += [tvm.runtime.tensor(padded), 0]
    target = tvm.target.Target({"kind": "llvm", "mcpu": mcpu, "num-cores": 1})
    return _built(kernel.func, target), arguments


def _default(shape: Shape, dtype: str) -> tuple[Any, list[Any]]:
    """A convolution as a function no kernel claims comes: NHWC, legalized by TVM."""
    import tvm
    from tvm import te, topi

    from tvmcomp.schedule.fallback import default_schedule
    from tvmcomp.target import detect

    acc = "float32" if dtype == "float32" else "int32"
    kernel = (shape.kernel, shape.kernel, shape.inputs, shape.outputs)
    x = te.placeholder((1, shape.size, shape.size, shape.inputs), dtype, "x")
    w = te.placeholder(kernel, "int8" if acc == "int32" else dtype, "w")
    y = topi.nn.conv2d_nhwc(x, w, 1, shape.kernel // 2, 1, out_dtype=acc)
    function = default_schedule(te.create_prim_func([x, w, y]))
    rng = np.random.default_rng(0)
    arrays = [
        _values(rng, prod(x.shape), dtype).reshape([int(d) for d in x.shape]),
        _values(rng, prod(kernel), str(w.dtype)).reshape(kernel),
        np.zeros([int(d) for d in y.shape], acc),
    ]
    target = detect().narrowed().tvm_target()
    return _built(function, target), [tvm.runtime.tensor(array) for array in arrays]


def _values(rng: np.random.Generator, count: int, dtype: str) -> np.ndarray:
    if dtype == "float32":
        return rng.standard_normal(int(count)).astype(np.float32)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, int(count)).astype(dtype)


def _built(function: Any, target: Any) -> Any:
    import tvm

    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    return tvm.tirx.build(module, target=target)


def _run(context: Context) -> Iterator[Check]:
    found = run_apart("acceptance.fallback:measure", {"trials": context.trials}, threads=1)
    peaks: dict[str, float] = found["peaks"]
    for name, rate in peaks.items():
        yield figure(f"peak, {name}: GMAC/s", rate / 1e9)
    tops: dict[str, Callable[[str], bool]] = {
        "uint8": lambda name: name.startswith("int8"),
        "float32": lambda name: name.startswith("float32"),
    }
    for kernel in found["kernels"]:
        top = max(
            (rate for name, rate in peaks.items() if tops[kernel["dtype"]](name)), default=0.0
        )
        if not top:
            raise NotRun(f"this CPU has no {kernel['dtype']} instruction whose peak is known here")
        work = sum(s["occurrences"] * s["macs"] for s in kernel["shapes"])
        seconds = sum(s["occurrences"] * s["seconds"] for s in kernel["shapes"])
        each = ", ".join(
            f"{s['shape']}: {s['macs'] / s['seconds'] / top:.1%}" for s in kernel["shapes"]
        )
        about = f"{kernel['name']}, {kernel['dtype']}"
        what, share = f"{about}: share of the core's peak", work / seconds / top
        yield (
            at_least(what, share, _LIMIT, each) if about in _JUDGED else figure(what, share, each)
        )


ROW = Row(
    "fallback",
    "fallback kernels reach at least 10 % of the core's peak on ResNet-50's shapes",
    _run,
)
