"""Every kernel with its rows shared among two threads; run as a script, which sets the pool's size.

TVM reads TVM_NUM_THREADS once, when its library loads, so this needs a process of its own.
"""

from __future__ import annotations

import sys

import numpy as np
import tvm

from kernel_harness import check, layout, random_values, spec
from tvmcomp.compress.reference import exp_factors
from tvmcomp.graph.layers import (
    Concat,
    Copy,
    Dequantize,
    Embedding,
    FloatConv,
    IntAdd,
    IntAffine,
    IntAvgPool,
    IntConv,
    IntLayerNorm,
    IntMatMul,
    IntMul,
    IntSoftmax,
    MaskSteps,
    MaxPool,
    Pad,
    Quantize,
    Resize,
    Slice,
    Table,
)
from tvmcomp.kernels import matmul_emit, permute, vector
from tvmcomp.kernels.binary import build_add, build_affine, build_mul
from tvmcomp.kernels.box import build_box_concat, build_pad, build_slice
from tvmcomp.kernels.concat import build_concat
from tvmcomp.kernels.convert import build_copy, build_dequantize, build_quantize
from tvmcomp.kernels.depthwise import build_depthwise
from tvmcomp.kernels.embedding import build_embedding
from tvmcomp.kernels.layer_norm import build_layer_norm
from tvmcomp.kernels.matmul import build_matmul
from tvmcomp.kernels.pool import build_avg_pool, build_max_pool
from tvmcomp.kernels.resize import build_resize
from tvmcomp.kernels.softmax import build_mask_steps, build_softmax
from tvmcomp.kernels.table import build_table
from tvmcomp.kernels.vector import GENERIC, Isa

SHAPE = (2, 7, 9, 70)
RNG = np.random.default_rng(0)
ONE = {"name": "l", "inputs": ("x",), "output": "y"}
TWO = ONE | {"inputs": ("x", "z")}
POOL = {"kernel": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1)}
CONV = {"pads": (1, 1, 1, 1), "groups": 70}
INDEX = np.stack([np.arange(7), np.minimum(np.arange(7) + 1, 6)], 1).astype(np.int32)
HALVES = np.full((7, 2), 0.5, np.float32)
COLUMNS = np.arange(9, dtype=np.int32)[:, None]
FACTORS = {"multiplier": np.full(70, 0.01, np.float32), "bias": np.full(70, 90, np.float32)}
WEIGHT = random_values(RNG, spec("w", (70, 3, 3, 1), "int8"))
GLOBAL = {"kernel": (7, 9), "strides": (1, 1), "pads": (0, 0, 0, 0), "count_include_pad": True}
CODES = {"low": 3, "high": 250}

# name: builder, layer, dtypes of (x, z, y), y's shape
CASES = {
    "quantize": (build_quantize, Quantize(**ONE), ("float32", "", "uint8"), SHAPE),
    "dequantize": (build_dequantize, Dequantize(**ONE), ("uint8", "", "float32"), SHAPE),
    "permute": (
        build_copy, Copy(**ONE, perm=(0, 3, 1, 2)), ("uint8", "", "uint8"), (2, 70, 7, 9),
    ),
    "table": (
        build_table, Table(**ONE, table=RNG.permutation(256).astype(np.uint8)),
        ("uint8", "", "uint8"), SHAPE,
    ),
    "add": (
        build_add, IntAdd(**TWO, scale_a=0.7, scale_b=0.4, **CODES),
        ("uint8", "uint8", "uint8"), SHAPE,
    ),
    "mul": (
        build_mul, IntMul(**TWO, multiplier=0.01, **CODES), ("uint8", "uint8", "uint8"), SHAPE,
    ),
    "matmul": (
        build_matmul, IntMatMul(**TWO, multiplier=1e-4, **CODES), ("uint8", "uint8", "uint8"),
        (2, 7, 9, 33),
    ),
    "concat": (build_concat, Concat(**TWO), ("uint8", "uint8", "uint8"), (2, 7, 9, 140)),
    "resize": (
        build_resize,
        Resize(
            **ONE, index_h=INDEX, weight_h=HALVES, index_w=COLUMNS,
            weight_w=np.ones((9, 1), np.float32),
        ),
        ("uint8", "", "uint8"), SHAPE,
    ),
    "max_pool": (build_max_pool, MaxPool(**ONE, **POOL), ("uint8", "", "uint8"), SHAPE),
    "avg_pool": (
        build_avg_pool, IntAvgPool(**ONE, **POOL, **CODES, count_include_pad=False),
        ("uint8", "", "uint8"), SHAPE,
    ),
    "affine": (
        build_affine,
        IntAffine(
            **ONE, **CODES, multiplier=np.full(70, 0.7, np.float32),
            bias=RNG.uniform(-9, 9, (9, 70)).astype(np.float32),
        ),
        ("uint8", "", "uint8"), SHAPE,
    ),
    "softmax": (
        build_softmax,
        IntSoftmax(
            **ONE, exps=exp_factors(0.05, 70, masked=True), inverse_scale=255.0,
            masks=(RNG.integers(-99, 9, (2, 1, 9, 70)).astype(np.int32),),
        ),
        ("uint8", "", "uint8"), SHAPE,
    ),
    "mask_steps": (build_mask_steps, MaskSteps(**ONE, step=0.05), ("float32", "", "int32"), SHAPE),
    "layer_norm": (
        build_layer_norm,
        IntLayerNorm(
            **ONE, **CODES, multiplier=np.full(70, 40, np.float32),
            bias=np.full(70, 120, np.float32), epsilon=0.01, centered=True,
        ),
        ("uint8", "", "uint8"), SHAPE,
    ),
    "embedding": (
        build_embedding,
        Embedding(
            **ONE, weight=random_values(RNG, spec("w", (10, 40), "int8")),
            scale=np.full(10, 0.7, np.float32),
        ),
        ("int32", "", "uint8"), (*SHAPE, 40),
    ),
    "box_concat": (
        build_box_concat, Concat(**TWO, axis=1), ("uint8", "uint8", "uint8"), (2, 14, 9, 70),
    ),
    "slice": (
        build_slice, Slice(**ONE, begin=(1, 0, 2, 5), strides=(1, 2, 1, 1)),
        ("uint8", "", "uint8"), (1, 4, 7, 65),
    ),
    "pad": (build_pad, Pad(**ONE, before=(0, 1, 0, 3), value=9), ("uint8", "", "uint8"), (2, 9, 9, 75)),
    # More taps than are written out: the sum is in a buffer of each thread's own.
    "global_pool": (
        build_avg_pool, IntAvgPool(**ONE, **GLOBAL, **CODES), ("uint8", "", "uint8"), (2, 1, 1, 70),
    ),
    "depthwise": (
        build_depthwise, IntConv(**ONE, **CONV, **FACTORS, **CODES, weight=WEIGHT),
        ("uint8", "", "uint8"), SHAPE,
    ),
    "float_depthwise": (
        build_depthwise,
        FloatConv(
            **ONE, **CONV, bias=np.ones(70, np.float32), weight=WEIGHT.astype(np.float32) / 64
        ),
        ("float32", "", "float32"), SHAPE,
    ),
}  # fmt: skip


def run_case(name: str, row: tuple[Isa, str]) -> None:
    build, layer, (x_type, z_type, y_type), y_shape = CASES[name]
    gate = {"mul": (2, 1, 1, 70), "matmul": (2, 7, 70, 33)}.get(name, SHAPE)
    zero = 60 if name in ("max_pool", "resize", "permute") else 11
    tensors = {"x": spec("x", SHAPE, x_type, zero=60), "y": spec("y", y_shape, y_type, zero=zero)}
    if z_type:
        tensors["z"] = spec("z", gate, z_type, zero=5)
    layouts = {key: layout(tensor, 1, 2) for key, tensor in tensors.items()}
    kernel = build(layer, tensors, layouts, row[0])
    loops = {"box_concat": 2, "pad": 2}.get(name, 1)
    assert kernel.func.script().count("T.parallel(") == loops, "rows are not shared"
    rtol = 1e-6 if name == "float_depthwise" else 0.0
    for seed in range(3):
        check(build, row, layer, tensors, layouts, seed=seed, rtol=rtol)


def main() -> None:
    vector._PARALLEL_BYTES = permute._PARALLEL_BYTES = matmul_emit._PARALLEL_PRODUCTS = 0
    threads = tvm.get_global_func("runtime.NumThreads")()
    widest = Isa("avx512-vnni", 16, vnni=True, vbmi=True, fma=True)
    rows = {"generic": (GENERIC, "x86-64-v2"), "vnni": (widest, "icelake-server")}
    for row in sys.argv[1:]:
        for name in CASES:
            run_case(name, rows[row])
            print(name, row, threads)


if __name__ == "__main__":
    main()
