"""Time the convolution kernels on the layer shapes of ResNet-50 against the core's own peak.

    taskset -c 1 python benchmarks/conv_kernels.py [--dtype uint8|float32] [--only 3x3]

The peak is the rate of vpdpbusd or fma on registers alone, measured in the same run. Hot: the same weights
every call. Cold: weights that cycle through more memory than the L2 cache, which is what a network sees.
"""

from __future__ import annotations

import os

os.environ.setdefault("TVM_NUM_THREADS", "1")
os.environ.setdefault("TVM_BIND_THREADS", "0")

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tvm
from tvm import tirx
from tvm.tirx.script.builder import ir as T

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from conv_cases import Case, make  # noqa: E402
from tvmcomp.kernels.conv import build_conv  # noqa: E402
from tvmcomp.kernels.kernel import SLACK, Kernel  # noqa: E402
from tvmcomp.kernels.mac import mac_for  # noqa: E402
from tvmcomp.kernels.plan import Plan  # noqa: E402
from tvmcomp.kernels.vector import Isa, Operand, build_func, each, i64, isa_for, splat  # noqa: E402
from tvmcomp.target import detect  # noqa: E402

COLD_BYTES = 48 << 20


def _layer(
    size: int,
    inputs: int,
    outputs: int,
    k: int = 1,
    s: int = 1,
    residual: bool = False,
    halo: int = 0,
) -> Case:
    return Case(
        height=size,
        width=size,
        inputs=inputs,
        outputs=outputs,
        kernel=(k, k),
        strides=(s, s),
        pads=(k // 2,) * 4,
        residual="uint8" if residual else None,
        y_halo=halo,
    )


def resnet50() -> dict[str, tuple[int, Case]]:
    """name -> (occurrences, case)."""
    layers = {"stem": (1, _layer(224, 3, 64, 7, 2))}
    size, inputs = 56, 64
    for stage, (middle, outputs, blocks) in enumerate(
        [(64, 256, 3), (128, 512, 4), (256, 1024, 6), (512, 2048, 3)]
    ):
        s = 1 if stage == 0 else 2
        out = size // s
        name = f"{out}x{middle}"
        layers[f"{name} 1x1 first"] = (1, _layer(size, inputs, middle, halo=1))
        layers[f"{name} shortcut"] = (1, _layer(size, inputs, outputs, 1, s))
        if s == 2:
            layers[f"{name} 3x3 stride 2"] = (1, _layer(size, middle, middle, 3, 2))
        layers[f"{name} 1x1 down"] = (blocks - 1, _layer(out, outputs, middle, halo=1))
        layers[f"{name} 3x3"] = (blocks - (s == 2), _layer(out, middle, middle, 3))
        layers[f"{name} 1x1 up"] = (blocks, _layer(out, middle, outputs, residual=True))
        size, inputs = out, outputs
    dense = Case(height=1, width=1, inputs=2048, outputs=1000)
    return {**layers, "classifier": (1, dense)}


def operations(case: Case) -> int:
    """Multiplications and additions of all images."""
    height, width = case.out
    depth = case.kernel[0] * case.kernel[1] * case.inputs // case.groups
    return 2 * case.batch * height * width * case.outputs * depth


def compile_function(function: tirx.PrimFunc, target: tvm.target.Target) -> tvm.runtime.Module:
    return tvm.tirx.build(
        tvm.IRModule({"main": function.with_attr("global_symbol", "main")}), target=target
    )


def peak(dtype: str, isa: Isa, target: tvm.target.Target) -> float:
    """Operations per second of the multiply-accumulate step on registers."""
    few = np.ones(1, np.int8)
    mac, accumulators, rounds = mac_for(dtype, few, isa), 24 if isa.lanes == 16 else 12, 1 << 16

    def body(x: Operand, y: Operand) -> None:
        whole = [tirx.Ramp(i64(0), i64(1), isa.lanes)]
        acc = [T.alloc_buffer((isa.lanes,), mac.acc, scope="global") for _ in range(accumulators)]
        value = T.bind(mac.broadcast(x, i64(0), isa.lanes))
        weights = T.bind(mac.weights(x, i64(64), isa.lanes))
        for one in acc:
            T.buffer_store(one, splat(0, isa.lanes, mac.acc), whole)

        def step(_: object) -> None:
            for one in acc:
                old = tirx.BufferLoad(one, whole)
                T.buffer_store(one, mac.step(old, value, weights, isa.lanes), whole)

        each(rounds, step)
        for i, one in enumerate(acc):
            y.store(i64(64 * i), tirx.BufferLoad(one, whole), mac.acc, isa.lanes)

    library = compile_function(build_func("peak", ("x", "y"), body), target)
    memory = tvm.runtime.tensor(np.zeros(1 << 14, np.uint8))
    timer = library.time_evaluator("main", tvm.cpu(), number=5, repeat=15)
    seconds = min(timer(memory, 0, memory, 4096).results)
    return 2 * accumulators * rounds * isa.lanes * mac.unit / seconds


@dataclass(frozen=True)
class Timing:
    """Seconds: the best of the hot calls, the fifth part of the cold ones is faster, and to compile."""

    hot: float
    cold: float
    compile: float


def measure(
    case: Case, isa: Isa, target: tvm.target.Target, plan: Plan | None = None
) -> tuple[Kernel, Timing]:
    """Build and time one kernel."""
    problem = make(case)
    kernel = build_conv(problem.layer, problem.tensors, problem.layouts, isa, plan)
    if kernel is None or kernel.constants is None:
        raise SystemExit(f"no kernel for {case}")
    start = time.perf_counter()
    library = compile_function(kernel.func, target)
    compiled = time.perf_counter() - start
    operands: list[object] = []
    rng = np.random.default_rng(0)
    for name in problem.layer.inputs:
        size = problem.layouts[name].nbytes + SLACK
        if case.floats:
            array = np.maximum(rng.standard_normal(size // 4 + 1), 0).astype(np.float32)
        else:
            array = rng.integers(0, 256, size).astype(np.uint8)
        operands += [tvm.runtime.tensor(array.view(np.uint8)), 0]
    step = -(-(len(kernel.constants) + SLACK) // 64) * 64
    copies = max(2, -(-COLD_BYTES // step))
    blob = np.zeros(copies * step, np.uint8)
    blob.reshape(copies, step)[:, : len(kernel.constants)] = kernel.constants
    constants = tvm.runtime.tensor(blob)
    y = tvm.runtime.tensor(np.zeros(problem.layouts["y"].nbytes + SLACK, np.uint8))
    function = library["main"]
    timer = library.time_evaluator("main", tvm.cpu(), number=1, repeat=3)
    once = min(timer(*operands, constants, 0, y, 0).results)
    # Short runs, so that some fall between what else this machine does.
    timer = library.time_evaluator("main", tvm.cpu(), number=1 + int(5e-4 / once), repeat=200)
    hot = min(timer(*operands, constants, 0, y, 0).results)
    cold = []
    for i in range(4 * min(copies, 64)):
        start = time.perf_counter()
        function(*operands, constants, i % copies * step, y, 0)
        cold.append(time.perf_counter() - start)
    return kernel, Timing(hot, sorted(cold)[len(cold) // 5], compiled)


def with_dtype(case: Case, dtype: str) -> Case:
    residual = case.residual and dtype
    return replace(case, x_dtype=dtype, y_dtype=dtype, residual=residual)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=("uint8", "int8", "float32"), default="uint8")
    parser.add_argument("--only", default="", help="layers whose name contains this")
    arguments = parser.parse_args()
    host = detect().narrowed()
    isa, target = isa_for(host.features), host.tvm_target()
    top = peak(arguments.dtype, isa, target)
    print(f"{isa.name}, {arguments.dtype}: peak {top / 1e9:.1f} GOPS")
    total = {"hot": 0.0, "cold": 0.0, "operations": 0.0, "compile": 0.0}
    for name, (count, case) in resnet50().items():
        if arguments.only not in name:
            continue
        case = with_dtype(case, arguments.dtype)
        kernel, timing = measure(case, isa, target)
        work = operations(case)
        total["hot"] += count * timing.hot
        total["cold"] += count * timing.cold
        total["operations"] += count * work
        total["compile"] += timing.compile
        print(
            f"{name:20s} {timing.hot * 1e6:8.1f} us hot {work / timing.hot / top:6.1%}   "
            f"{timing.cold * 1e6:8.1f} us cold {work / timing.cold / top:6.1%}   "
            f"compile {timing.compile:.2f} s   {kernel.plan}",
            flush=True,
        )
    if total["operations"]:
        print(
            f"all: {total['hot'] * 1e3:.2f} ms hot {total['operations'] / total['hot'] / top:.1%}, "
            f"{total['cold'] * 1e3:.2f} ms cold {total['operations'] / total['cold'] / top:.1%}, "
            f"compile {total['compile']:.1f} s"
        )


if __name__ == "__main__":
    main()
