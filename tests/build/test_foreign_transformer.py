"""A transformer layer as ONNX Runtime's static quantizer leaves it, scalars in codes among it: integers throughout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from frontend.graphs import lowered, make, node, onnxruntime_outputs
from tvmcomp.compress.reference import run
from tvmcomp.graph.layers import (
    FloatConv,
    FloatMatMul,
    IntConv,
    IntMatMul,
    IntSoftmax,
    LayerGraph,
    Opaque,
)

F32 = np.float32
LENGTH, WIDTH, HEADS = 6, 16, 2


def network() -> onnx.ModelProto:
    """Layer norm, attention of two heads under an additive mask, GELU, a residual; y: [1, 6, 16]."""
    rng = np.random.default_rng(0)
    weights = {name: (rng.standard_normal((WIDTH, WIDTH)) / 4).astype(F32) for name in "qkvo"}
    weights |= {f"{name}b": rng.standard_normal(WIDTH).astype(F32) / 4 for name in "qkvo"}
    weights |= {
        "gamma": rng.uniform(0.5, 1.5, WIDTH).astype(F32),
        "beta": rng.standard_normal(WIDTH).astype(F32),
        "split": np.array([1, LENGTH, HEADS, -1], np.int64),
        "joined": np.array([1, LENGTH, WIDTH], np.int64),
        "far": np.array(-6.0, F32),
        "root": np.array(0.5946, F32),
    }
    nodes = [node("LayerNormalization", ["x", "gamma", "beta"], ["n"], name="norm", axis=-1)]
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            node("MatMul", ["n", name], [f"{name}0"], name=f"{name}0"),
            node("Add", [f"{name}0", f"{name}b"], [f"{name}1"], name=f"{name}1"),
            node("Reshape", [f"{name}1", "split"], [f"{name}2"], name=f"{name}2"),
            node("Transpose", [f"{name}2"], [f"{name}3"], name=f"{name}3", perm=perm),
        ]
    nodes += [
        node("Mul", ["q3", "root"], ["q4"], name="q4"),
        node("Mul", ["k3", "root"], ["k4"], name="k4"),
        node("MatMul", ["q4", "k4"], ["s0"], name="s0"),
        node("Mul", ["mask", "far"], ["m"], name="m"),
        node("Add", ["s0", "m"], ["s1"], name="s1"),
        node("Softmax", ["s1"], ["p"], name="p", axis=-1),
        node("MatMul", ["p", "v3"], ["a0"], name="a0"),
        node("Transpose", ["a0"], ["a1"], name="a1", perm=[0, 2, 1, 3]),
        node("Reshape", ["a1", "joined"], ["a2"], name="a2"),
        node("MatMul", ["a2", "o"], ["o0"], name="o0"),
        node("Add", ["o0", "ob"], ["o1"], name="o1"),
        node("Gelu", ["o1"], ["g"], name="g"),
        node("Add", ["g", "x"], ["y"], name="y"),
    ]
    inputs = {"x": (1, LENGTH, WIDTH), "mask": (1, 1, 1, LENGTH)}
    return make(nodes, inputs, weights=weights, opset=20)


def sample(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = (np.arange(LENGTH) >= 4).astype(F32).reshape(1, 1, 1, LENGTH)
    return {"x": rng.standard_normal((1, LENGTH, WIDTH)).astype(F32), "mask": mask}


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self._rest = [sample(seed) for seed in range(1, 5)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._rest.pop() if self._rest else None


def quantized(folder: Path, form: QuantFormat, activations: QuantType) -> onnx.ModelProto:
    onnx.save(network(), folder / "float.onnx")
    quantize_static(
        folder / "float.onnx", folder / "int8.onnx", Reader(), quant_format=form, per_channel=True,
        activation_type=activations, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return onnx.load(folder / "int8.onnx")


def count(graph: LayerGraph, kind: type) -> int:
    return sum(isinstance(layer, kind) for layer in graph.layers)


@pytest.mark.parametrize(
    ("form", "activations"),
    [
        (QuantFormat.QDQ, QuantType.QUInt8),
        (QuantFormat.QDQ, QuantType.QInt8),
        (QuantFormat.QOperator, QuantType.QUInt8),
    ],
    ids=["QDQ u8s8", "QDQ s8s8", "operator form"],
)
def test_a_transformer_layer_runs_in_integers(
    tmp_path: Path, form: QuantFormat, activations: QuantType
) -> None:
    model = quantized(tmp_path, form, activations)
    graph = lowered(model)
    assert (count(graph, IntConv), count(graph, IntMatMul), count(graph, IntSoftmax)) == (4, 2, 1)
    assert count(graph, FloatConv) + count(graph, FloatMatMul) == 0
    # The mask's factor is a scalar in codes: known at build time, so no dequantize of it is left.
    scalars = [
        t for t in model.graph.initializer if t.data_type != TensorProto.FLOAT and not t.dims
    ]
    assert any(tensor.name.startswith("far") for tensor in scalars)
    if form == QuantFormat.QOperator:
        # ONNX Runtime leaves layer norm on floats there, so it stays one here.
        assert count(graph, Opaque) == 1
        return
    assert count(graph, Opaque) == 0
    x = sample(9)
    (expected,), (actual,) = onnxruntime_outputs(model, x), run(graph, x).values()
    step = np.diff(np.unique(expected)).min()
    assert len(np.unique(expected)) > 20
    assert np.abs(actual - expected).max() <= 2.01 * step
