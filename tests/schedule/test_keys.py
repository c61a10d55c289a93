"""Layers that share a kernel's key share its function: no attribute that changes the function is missing from a key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm

from tvmcomp.compress.reference import exp_factors
from tvmcomp.graph.layers import (
    Concat,
    Conv,
    Copy,
    Dequantize,
    Embedding,
    FloatConv,
    FloatMatMul,
    IntAdd,
    IntAffine,
    IntAvgPool,
    IntConv,
    IntLayerNorm,
    IntMatMul,
    IntMul,
    IntSoftmax,
    Layer,
    MaskSteps,
    MatMul,
    MaxPool,
    Pad,
    QParams,
    Quantize,
    Resize,
    Slice,
    Table,
    TensorSpec,
)
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.vector import isa_for
from tvmcomp.schedule.select import KERNELS
from tvmcomp.target import Target

Case = tuple[Layer, dict[str, TensorSpec], dict[str, Layout]]
ISAS = {name: isa_for(Target.load(name).features) for name in ("x86-avx2", "x86-zen4")}
RNG = np.random.default_rng(0)
SHAPE = (2, 6, 6, 20)
BOUNDS = {"low": 3, "high": 200}
RAMP = np.arange(256).astype(np.uint8)


def conv(kind: type[Conv], groups: int, inputs: tuple[str, ...] = ("x",), **fields: Any) -> Conv:
    real = kind is FloatConv
    weight = RNG.integers(-100, 100, (20, 3, 3, 20 // groups))
    ones = np.ones(20, np.float32)
    if not real:
        fields |= BOUNDS | {"multiplier": ones * 0.01}
    return kind(
        name="l",
        inputs=inputs,
        output="y",
        weight=weight.astype(np.float32 if real else np.int8),
        pads=(1, 1, 1, 1),
        groups=groups,
        bias=ones,
        **fields,
    )


def pool(kind: type[Layer], **fields: Any) -> Layer:
    geometry = {"kernel": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1)}
    return kind(name="l", inputs=("x",), output="y", **geometry, **fields)


def resize(taps: int) -> Resize:
    index = np.stack([np.arange(6)] * taps, 1).astype(np.int32)
    weight = np.full((6, taps), 1 / taps, np.float32)
    fields = {"index_h": index, "weight_h": weight, "index_w": index, "weight_w": weight}
    return Resize(name="l", inputs=("x",), output="y", **fields)


def plain(kind: type[Layer], inputs: tuple[str, ...] = ("x",), **fields: Any) -> Layer:
    return kind(name="l", inputs=inputs, output="y", **fields)


ADD = {"scale_a": 0.5, "scale_b": 0.25}
FACTORS = np.linspace(0.1, 1, 20).astype(np.float32)
STEPS = np.zeros((6, 20), np.int32)
LAYERS: dict[str, tuple[Layer, str, str]] = {
    "conv": (conv(IntConv, 1), "uint8", "uint8"),
    "conv residual": (conv(IntConv, 1, ("x", "b"), residual_scale=0.5), "uint8", "uint8"),
    "conv groups": (conv(IntConv, 2), "uint8", "uint8"),
    "depthwise": (conv(IntConv, 20), "uint8", "uint8"),
    "depthwise s8": (conv(IntConv, 20), "int8", "int8"),
    "depthwise residual": (conv(IntConv, 20, ("x", "b"), residual_scale=0.5), "uint8", "uint8"),
    "float conv": (conv(FloatConv, 1, low=0.0, high=6.0), "float32", "float32"),
    "float depthwise": (conv(FloatConv, 20, low=0.0, high=6.0), "float32", "float32"),
    "max": (pool(MaxPool), "uint8", "uint8"),
    "average": (pool(IntAvgPool, count_include_pad=True, **BOUNDS), "uint8", "uint8"),
    "average inside": (pool(IntAvgPool, count_include_pad=False, **BOUNDS), "uint8", "uint8"),
    "add": (plain(IntAdd, ("x", "b"), **ADD, **BOUNDS), "uint8", "uint8"),
    "mul": (plain(IntMul, ("x", "b"), multiplier=0.01, **BOUNDS), "uint8", "uint8"),
    "matmul": (plain(IntMatMul, ("x", "b"), multiplier=0.01, **BOUNDS), "uint8", "uint8"),
    "matmul s8": (plain(IntMatMul, ("x", "b"), multiplier=0.01, **BOUNDS), "int8", "int8"),
    "float matmul": (plain(FloatMatMul, ("x", "b"), low=0.0, high=6.0), "float32", "float32"),
    "concat": (plain(Concat, ("x", "b"), tables=(None, RAMP)), "uint8", "uint8"),
    "table": (plain(Table, table=RAMP), "uint8", "uint8"),
    "nearest": (resize(1), "uint8", "uint8"),
    "embedding": (
        plain(Embedding, weight=RNG.integers(-9, 9, (10, 20)).astype(np.int8), scale=FACTORS[:10]),
        "int32", "uint8",
    ),
    "linear": (resize(2), "uint8", "uint8"),
    "affine": (
        plain(IntAffine, multiplier=FACTORS, bias=FACTORS, **BOUNDS), "uint8", "uint8",
    ),
    "softmax": (
        plain(IntSoftmax, exps=exp_factors(0.05, 20, masked=True), inverse_scale=255.0, masks=(STEPS,)),
        "uint8", "uint8",
    ),
    "mask steps": (plain(MaskSteps, step=0.05), "float32", "int32"),
    "layer norm": (
        plain(IntLayerNorm, multiplier=FACTORS, bias=FACTORS, epsilon=0.1, centered=True, **BOUNDS),
        "uint8", "uint8",
    ),
    "concat rows": (plain(Concat, ("x", "b"), tables=(None, RAMP), axis=1), "uint8", "uint8"),
    "slice": (plain(Slice, begin=(0, 0, 0, 0), strides=(1, 1, 1, 1)), "uint8", "uint8"),
    "pad": (plain(Pad, before=(0, 0, 0, 0), value=7), "uint8", "uint8"),
    "quantize": (plain(Quantize, perm=(0, 1, 2, 3)), "float32", "uint8"),
    "dequantize": (plain(Dequantize), "uint8", "float32"),
    "copy": (plain(Copy, perm=(0, 1, 2, 3)), "uint8", "uint8"),
}  # fmt: skip


def joined(layer: Concat) -> tuple[int, ...]:
    shape = list(SHAPE)
    shape[layer.axis] *= 2
    return tuple(shape)


def case(name: str) -> Case:
    layer, x_dtype, y_dtype = LAYERS[name]
    tensors, layouts = {}, {}
    for tensor, dtype in (*((name, x_dtype) for name in layer.inputs), ("y", y_dtype)):
        if tensor == "x" and isinstance(layer, Embedding):
            tensors[tensor] = TensorSpec(tensor, SHAPE[:3], dtype)
            layouts[tensor] = Layout.dense(SHAPE[:3], 4)
            continue
        shape = joined(layer) if tensor == "y" and isinstance(layer, Concat) else SHAPE
        if tensor == "b" and isinstance(layer, MatMul):
            shape = (*SHAPE[:2], 20, 20)
        qparams = None if dtype in ("float32", "int32") else QParams(0.05, 7)
        tensors[tensor] = TensorSpec(tensor, shape, dtype, qparams)
        halo = 2 if tensor == "x" and isinstance(layer, Conv) else 0
        dense = Layout.dense(shape, np.dtype(dtype).itemsize)
        layouts[tensor] = replace(dense, halo=halo)
    return layer, tensors, layouts


def changed_fields(layer: Layer) -> Iterator[dict[str, object]]:
    """Every attribute of the layer with another value of its type."""
    other: dict[str, tuple[object, ...]] = {
        "strides": ((2, 2), (1, 2)),
        "pads": ((1, 0, 0, 1), (0, 1, 1, 1), (0, 0, 0, 0)),
        "dilation": ((2, 1), (1, 2)),
        "kernel": ((2, 3), (3, 2)),
        "low": (4, 0),
        "high": (201, 255),
        "residual_scale": (0.75,),
        "scale_a": (0.75,),
        "scale_b": (0.75,),
        "bias": (4.0,),
        "multiplier": (0.02,),
        "count_include_pad": (not getattr(layer, "count_include_pad", False),),
        "tables": ((None, None), (RAMP, None), (RAMP, RAMP)),
        "perm": ((0, 2, 1, 3), None),
        "perm_a": ((0, 2, 1, 3),),
        "perm_b": ((0, 1, 3, 2), (1, 0, 2, 3)),
        "perm_y": ((0, 2, 1, 3), (2, 1, 0, 3)),
        "scale": (0.25,),
        "inverse_scale": (200.0,),
        "shift": (4,),
        "masks": ((), (STEPS, STEPS), (STEPS[:1],), (STEPS[:, :1],)),
        "step": (0.06,),
        "epsilon": (0.2,),
        "centered": (False,),
        "before": ((0, 0, 0, 1), (0, 1, 0, 0)),
        "value": (8,),
        "constants": ((),),
    }
    for field, values in other.items():
        if not hasattr(layer, field) or isinstance(getattr(layer, field), np.ndarray):
            continue
        if isinstance(layer, Slice):
            continue
        yield from ({field: value} for value in values)
    if isinstance(layer, IntSoftmax):
        yield {"exps": exp_factors(0.005, 20, masked=True)}
    if isinstance(layer, IntAffine):
        yield {"multiplier": FACTORS[:1]}
        yield {"bias": np.resize(FACTORS, (6, 20))}
        yield {"bias": np.resize(FACTORS, (6, 1))}
    if isinstance(layer, Slice):
        yield {"begin": (0, 5, 0, 0), "strides": (1, -1, 1, 1)}
        yield {"begin": (0, 5, 0, 19), "strides": (1, -1, 1, -1)}
    # The same size of y by other windows.
    if hasattr(layer, "pads"):
        yield {"pads": (0, 1, 2, 1)}
        yield {"pads": (1, 2, 1, 0)}
    if hasattr(layer, "dilation"):
        yield {"pads": (2, 1, 2, 1), "dilation": (2, 1)}
    if hasattr(layer, "kernel"):
        yield {"pads": (0, 1, 1, 1), "kernel": (2, 3)}
    if isinstance(layer, IntConv | IntMatMul):
        yield {"multiplier": layer.multiplier * 1e9}
    if isinstance(layer, Resize):
        one, two = resize(1), resize(2)
        yield {"index_h": one.index_h, "weight_h": one.weight_h}
        yield {"index_w": one.index_w, "weight_w": one.weight_w}
        yield {"index_w": two.index_w, "weight_w": two.weight_w}
        yield {"weight_w": layer.weight_w / 2}
    if isinstance(layer, Conv):
        for shape in ((20, 3, 2), (20, 2, 3), (40, 3, 3)):
            weight = np.resize(layer.weight, (*shape, layer.weight.shape[3]))
            ones = np.ones(shape[0], np.float32)
            more = {"multiplier": ones} if isinstance(layer, IntConv) else {}
            yield {"weight": weight, "bias": ones, **more}
        yield {"weight": layer.weight // 100}


def out_size(layer: Layer) -> tuple[int, int]:
    kernel = layer.weight.shape[1:3] if isinstance(layer, Conv) else layer.kernel
    dilation = getattr(layer, "dilation", (1, 1))
    return tuple(
        (6 + layer.pads[i] + layer.pads[i + 2] - (kernel[i] - 1) * dilation[i] - 1)
        // layer.strides[i]
        + 1
        for i in (0, 1)
    )


def variants(name: str) -> Iterator[Case]:
    layer, tensors, layouts = case(name)
    yield layer, tensors, layouts
    for fields in changed_fields(layer):
        new, sizes, places = replace(layer, **fields), dict(tensors), dict(layouts)
        if isinstance(new, Conv | MaxPool | IntAvgPool):
            channels = new.weight.shape[0] if isinstance(new, Conv) else SHAPE[3]
            shape = (2, *out_size(new), channels)
            for tensor in ("y", *new.inputs[1:]):
                sizes[tensor] = replace(tensors[tensor], shape=shape)
                places[tensor] = Layout.dense(shape, layouts[tensor].itemsize)
        yield new, sizes, places
    for tensor, spec in tensors.items():
        for change in ({"halo": 3}, {"pitch": 48}):
            yield layer, tensors, layouts | {tensor: replace(layouts[tensor], **change)}
        if spec.qparams is None:
            continue
        wider = {name: replace(place, halo=2) for name, place in layouts.items()}
        for qparams in (QParams(0.06, 7), QParams(0.05, 8)):
            yield layer, tensors | {tensor: replace(spec, qparams=qparams)}, wider
        signed = replace(spec, dtype="int8" if spec.dtype == "uint8" else "uint8")
        yield layer, tensors | {tensor: signed}, wider


def build(case: Case, isa: Any) -> Kernel | None:
    for builder in KERNELS[type(case[0])]:
        kernel = builder(*case, isa)
        if kernel is not None:
            return kernel
    return None


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", LAYERS)
def test_equal_keys_are_equal_functions(name: str, isa: str):
    seen: dict[str, Kernel] = {}
    built = 0
    for variant in variants(name):
        kernel = build(variant, ISAS[isa])
        if kernel is None:
            continue
        built += 1
        first = seen.setdefault(kernel.key, kernel)
        tvm.ir.assert_structural_equal(first.func, kernel.func, map_free_vars=True)
    assert built > 5
    assert len(seen) > 3
