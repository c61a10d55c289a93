"""Activations quantized at run time in ONNX: the forms ONNX Runtime's quantizer and optimizer write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from frontend.graphs import lowered, make, node, onnxruntime_outputs
from tvmcomp.compress.reference import run
from tvmcomp.flow import compile_model
from tvmcomp.frontend import from_onnx
from tvmcomp.graph.layers import DynamicConv, DynamicQuantize, FloatConv, LayerGraph, Opaque

F32 = np.float32
RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(F32)


def codes(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, shape).astype(dtype)


def check(model: onnx.ModelProto, x: np.ndarray, products: int) -> LayerGraph:
    graph = lowered(model)
    assert sum(isinstance(layer, DynamicConv) for layer in graph.layers) == products
    assert not any(isinstance(layer, FloatConv | Opaque) for layer in graph.layers)
    (expected,), (actual,) = onnxruntime_outputs(model, {"x": x}), run(graph, {"x": x}).values()
    # A scale that differs in its last bit moves a code at a tie.
    assert np.abs(actual - expected).max() <= 0.02 * np.abs(expected).max()
    assert np.abs(actual - expected).mean() <= 0.002 * np.abs(expected).max()
    return graph


@pytest.mark.parametrize("weight", [QuantType.QInt8, QuantType.QUInt8])
@pytest.mark.parametrize("per_channel", [True, False])
def test_quantize_dynamic(tmp_path: Path, weight: QuantType, per_channel: bool) -> None:
    weights = {
        "w": normal(6, 3, 3, 3), "b": normal(6), "v": normal(96, 5), "c": normal(5),
        "shape": np.array([1, 96], np.int64),
    }  # fmt: skip
    nodes = [
        node("Conv", ["x", "w", "b"], ["h"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["h"], ["r"]),
        node("Reshape", ["r", "shape"], ["f"]),
        node("MatMul", ["f", "v"], ["m"], name="dense"),
        node("Add", ["m", "c"], ["y"]),
    ]
    onnx.save(make(nodes, {"x": (1, 3, 4, 4)}, weights=weights), tmp_path / "f.onnx")
    # Its ConvInteger takes unsigned weights only.
    kinds = ["Conv", "MatMul"] if weight == QuantType.QUInt8 and not per_channel else ["MatMul"]
    quantize_dynamic(
        tmp_path / "f.onnx",
        tmp_path / "q.onnx",
        op_types_to_quantize=kinds,
        per_channel=per_channel,
        weight_type=weight,
    )
    model, x = onnx.load(tmp_path / "q.onnx"), normal(1, 3, 4, 4)
    if len(kinds) == 2:
        check(model, x, 2)
        return
    graph = lowered(model)
    assert sum(isinstance(layer, DynamicConv) for layer in graph.layers) == 1
    (expected,), (actual,) = onnxruntime_outputs(model, {"x": x}), run(graph, {"x": x}).values()
    assert np.abs(actual - expected).max() <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("op", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
@pytest.mark.parametrize("biased", [True, False])
def test_fused_products(op: str, biased: bool) -> None:
    weights = {
        "w": codes((16, 5), "int8"),
        "ws": np.full(5, 0.01, F32),
        "wz": np.zeros(5, np.int8),
        "b": normal(5),
    }
    bias = ["b"] if biased else []
    if op == "DynamicQuantizeMatMul":
        nodes = [node(op, ["x", "w", "ws", "wz", *bias], ["y"], domain="com.microsoft")]
    else:
        nodes = [
            node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            node(op, ["q", "w", "s", "ws", "z", "wz", *bias], ["y"], domain="com.microsoft"),
        ]
    model = make(nodes, {"x": (3, 16)}, weights=weights, domains=["com.microsoft"])
    graph = check(model, normal(3, 16), 1)
    assert sum(isinstance(layer, DynamicQuantize) for layer in graph.layers) == 1


def test_sums_of_codes_alone_are_exact() -> None:
    """MatMulInteger and ConvInteger on codes of a client, int32 out."""
    cases = {
        "MatMulInteger": ((4, 16), {"w": codes((16, 5), "int8"), "z": np.uint8(7), "k": codes((5,), "int8")}, {}),
        "ConvInteger": (
            (2, 6, 7, 7), {"w": codes((4, 3, 3, 3), "uint8"), "z": np.uint8(9), "k": np.uint8(100)},
            {"pads": [1, 0, 1, 2], "strides": [2, 1], "group": 2},
        ),
    }  # fmt: skip
    for op, (shape, weights, attributes) in cases.items():
        model = make(
            [node(op, ["x", "w", "z", "k"], ["y"], **attributes)],
            {"x": shape},
            weights={name: np.asarray(array) for name, array in weights.items()},
            dtype=TensorProto.UINT8,
        )
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT32
        x = codes(shape, "uint8")
        (expected,) = onnxruntime_outputs(model, {"x": x})
        np.testing.assert_array_equal(compile_model(from_onnx(model))(x), expected)


def test_codes_and_scale_are_results_of_their_own() -> None:
    nodes = [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])]
    model = make(nodes, {"x": (3, 16)}, ["q", "s", "z"])
    for value, kind in zip(model.graph.output, ("UINT8", "FLOAT", "UINT8"), strict=True):
        value.type.tensor_type.elem_type = TensorProto.DataType.Value(kind)
    executable = compile_model(from_onnx(model))
    for x in (normal(3, 16), np.zeros((3, 16), F32)):
        wanted, got = onnxruntime_outputs(model, {"x": x}), executable.run({"x": x})
        q, s, z = got.values()
        assert int(z) == int(wanted[2])
        np.testing.assert_allclose(s, wanted[1], rtol=1e-6)
        assert np.abs(q.astype(int) - wanted[0].astype(int)).max() <= 1
