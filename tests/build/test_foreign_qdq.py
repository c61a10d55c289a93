"""Graphs with pairs of another quantizer: every setting runs in integers and every pair stays where it stood."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from frontend.graphs import lowered, make, node, onnxruntime_outputs
from tvmcomp.compress import Recipe
from tvmcomp.compress.reference import run
from tvmcomp.errors import ModelError, QuantizeError
from tvmcomp.flow import compile_model, compress_model
from tvmcomp.frontend import from_onnx
from tvmcomp.graph.layers import (
    Dequantize,
    Embedding,
    FloatConv,
    IntAdd,
    IntConv,
    LayerGraph,
    Opaque,
    Quantize,
    Table,
)

F32 = np.float32
QU8, QS8 = QuantType.QUInt8, QuantType.QInt8


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def network() -> onnx.ModelProto:
    """Convolutions, one depthwise, a residual, a pool, a dense layer."""
    weights = {
        "w1": normal(8, 3, 3, 3, seed=1) / 4,
        "b1": normal(8, seed=2),
        "w2": normal(8, 1, 3, 3, seed=3) / 2,
        "b2": normal(8, seed=4),
        "w3": normal(8, 8, 1, 1, seed=5) / 2,
        "w4": normal(6, 8, seed=6) / 2,
        "b4": normal(6, seed=7),
    }
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], strides=[2, 2], **pads),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], group=8, **pads),
        node("Clip", ["c2", "zero", "six"], ["r2"]),
        node("Conv", ["r2", "w3"], ["c3"]),
        node("Add", ["c3", "r1"], ["a"]),
        node("GlobalAveragePool", ["a"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["y"], transB=1),
    ]
    weights |= {"zero": np.array(0, F32), "six": np.array(6, F32)}
    return make(nodes, {"x": (1, 3, 12, 12)}, weights=weights)


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self._rest = [normal(1, 3, 12, 12, seed=i) for i in range(20, 24)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return {"x": self._rest.pop()} if self._rest else None


def quantized(folder: Path, **settings: Any) -> onnx.ModelProto:
    """`network` as ONNX Runtime's static quantizer leaves it."""
    onnx.save(network(), folder / "float.onnx")
    settings = {"quant_format": QuantFormat.QDQ, **settings}
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Reader(), **settings)
    return onnx.load(folder / "int8.onnx")


def floats(graph: LayerGraph) -> list[str]:
    """Layers that compute on float32."""
    return [
        layer.name
        for layer in graph.layers
        if isinstance(layer, FloatConv | Opaque) or graph.tensors[layer.output].dtype == "float32"
        if not (isinstance(layer, Dequantize) and layer.output in graph.outputs)
    ]


SETTINGS: dict[str, dict[str, Any]] = {
    "u8s8 per channel": {"activation_type": QU8, "weight_type": QS8, "per_channel": True},
    "s8s8": {"activation_type": QS8, "weight_type": QS8},
    "s8s8 symmetric": {
        "activation_type": QS8,
        "weight_type": QS8,
        "per_channel": True,
        "extra_options": {"ActivationSymmetric": True},
    },
    "u8u8": {"activation_type": QU8, "weight_type": QU8, "extra_options": {"WeightSymmetric": False}},
    "u8u8 per channel": {"activation_type": QU8, "weight_type": QU8, "per_channel": True},
    "float bias": {"weight_type": QS8, "extra_options": {"QuantizeBias": False}},
    "a pair per reader": {"weight_type": QS8, "extra_options": {"DedicatedQDQPair": True}},
    "pairs at weights": {"weight_type": QS8, "extra_options": {"AddQDQPairToWeight": True}},
    "operators of its own domain": {"weight_type": QS8, "extra_options": {"UseQDQContribOps": True}},
    "operator form": {"weight_type": QS8, "per_channel": True, "quant_format": QuantFormat.QOperator},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_runs_in_integers(tmp_path: Path, name: str) -> None:
    model = quantized(tmp_path, **SETTINGS[name])
    graph = lowered(model)
    assert floats(graph) == []
    assert sum(isinstance(layer, IntConv) for layer in graph.layers) == 4
    last = next(layer for layer in graph.layers if layer.output == graph.outputs[0])
    step = graph.tensors[last.inputs[0]].qparams.scale
    for seed in (40, 41):
        x = {"x": normal(1, 3, 12, 12, seed=seed)}
        (expected,), (actual,) = onnxruntime_outputs(model, x), run(graph, x).values()
        # Two steps: a difference of one in the middle passes through sums of many.
        assert np.abs(actual - expected).max() <= 2.01 * step
        assert len(np.unique(expected)) > 3


def test_every_pair_of_the_graph_stands_in_the_layers(tmp_path: Path) -> None:
    """Symmetric codes keep the relu behind its convolution's pair: a layer of codes for each quantize."""
    model = quantized(tmp_path, **SETTINGS["s8s8 symmetric"])
    scales = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    wanted = Counter(
        float(scales[n.input[1]]) for n in model.graph.node if n.op_type == "QuantizeLinear"
    )
    graph = lowered(model)
    placed = Counter(
        graph.tensors[layer.output].qparams.scale
        for layer in graph.layers
        if graph.tensors[layer.output].qparams is not None
    )
    assert placed == wanted
    assert Counter(type(layer).__name__ for layer in graph.layers)["Table"] == 2


def test_the_compiled_network_equals_the_reference(tmp_path: Path) -> None:
    model = quantized(tmp_path, **SETTINGS["u8u8"])
    graph, x = lowered(model), {"x": normal(1, 3, 12, 12, seed=40)}
    assert any(
        layer.weight.dtype == np.int16 for layer in graph.layers if isinstance(layer, IntConv)
    )
    (expected,) = run(graph, x).values()
    np.testing.assert_array_equal(compile_model(from_onnx(model))(x["x"]), expected)


def test_a_quantized_model_is_not_quantized_again(tmp_path: Path) -> None:
    model = from_onnx(quantized(tmp_path, **SETTINGS["s8s8"]))
    with pytest.raises(QuantizeError, match=r"quantized already; compile it without a recipe"):
        compress_model(model, Recipe.load("int8"), {"x": normal(2, 3, 12, 12)})


def pairs(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], *, opset: int = 21
) -> onnx.ModelProto:
    weights = {
        "s": np.array(0.05, F32),
        "z": np.array(3, np.int8),
        "t": np.array(0.07, F32),
    } | weights
    return make(nodes, {"x": (1, 8, 4, 4)}, weights=weights, opset=opset)


def q(x: str, y: str, scale: str = "s", zero: str = "z", **attributes: Any) -> onnx.NodeProto:
    return node("QuantizeLinear", [x, scale, zero], [y], **attributes)


def dq(x: str, y: str, scale: str = "s", zero: str = "z", **attributes: Any) -> onnx.NodeProto:
    return node("DequantizeLinear", [x, scale, zero], [y], name=f"dq_{y}", **attributes)


def within(model: onnx.ModelProto, steps: float) -> LayerGraph:
    graph, x = lowered(model), {"x": 3 * normal(1, 8, 4, 4, seed=9)}
    (expected,), (actual,) = onnxruntime_outputs(model, x), run(graph, x).values()
    assert np.abs(actual.astype(np.float64) - expected).max() <= steps
    assert len(np.unique(expected)) > 5
    return graph


@pytest.mark.parametrize("opset", [10, 13, 19, 21])
def test_a_chain_of_pairs_and_codes_as_the_result(opset: int) -> None:
    nodes = [
        q("x", "a"),
        dq("a", "b"),
        q("b", "c", "t", "u"),
        dq("c", "d", "t", "u"),
        q("d", "y", "t"),
    ]
    model = pairs(nodes, {"u": np.array(100, np.uint8)}, opset=opset)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
    graph = within(model, 0)
    assert [type(layer) for layer in graph.layers] == [Quantize, Table, Table]
    assert graph.tensors[graph.outputs[0]].dtype == "int8"


def test_one_convolution_quantized_in_two_ways_sums_in_integers() -> None:
    nodes = [
        q("x", "a"), dq("a", "b"), dq("w", "wd", "ws", "wz", axis=0), node("Conv", ["b", "wd"], ["c"]),
        q("c", "d"), dq("d", "e"), q("c", "f", "t"), dq("f", "g", "t"), node("Add", ["e", "g"], ["h"]),
        q("h", "i", "t"), dq("i", "y", "t"),
    ]  # fmt: skip
    weights = {
        "w": np.random.default_rng(0).integers(-128, 128, (4, 8, 1, 1)).astype(np.int8),
        "ws": np.full(4, 0.005, F32),
        "wz": np.zeros(4, np.int8),
    }
    graph = within(pairs(nodes, weights), 0.071)
    (conv,) = (layer for layer in graph.layers if isinstance(layer, IntConv))
    assert graph.tensors[conv.output].dtype == "float32"
    assert sum(isinstance(layer, Quantize) for layer in graph.layers) == 3
    assert any(isinstance(layer, IntAdd) for layer in graph.layers)


@pytest.mark.parametrize("zero", [0, 1, 100])
def test_an_embedding_whose_codes_have_a_zero_point(zero: int) -> None:
    nodes = [
        dq("w", "wd", "t", "wz"), node("Gather", ["wd", "x"], ["e"]), q("e", "c"), dq("c", "y"),
    ]  # fmt: skip
    table = np.random.default_rng(0).integers(-60, 60, (9, 16)).astype(np.int8)
    model = pairs(nodes, {"w": table, "wz": np.array(zero, np.int8)})
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.INT64, [5]))
    graph, x = lowered(model), {"x": np.array([0, 3, 8, 1, 4])}
    assert any(isinstance(layer, Embedding) for layer in graph.layers)
    # Whatever guards the indices of a client leaves these alone.
    (actual,) = run(graph, x, lambda layer, arrays: [arrays[0]]).values()
    (expected,) = onnxruntime_outputs(model, x)
    np.testing.assert_array_equal(actual, expected)


def test_scales_per_block_are_refused() -> None:
    nodes = [dq("w", "wd", "ws", "wz", axis=1, block_size=4), node("Conv", ["x", "wd"], ["y"])]
    weights = {
        "w": np.ones((4, 8, 1, 1), np.int8),
        "ws": np.ones((4, 2, 1, 1), F32),
        "wz": np.zeros((4, 2, 1, 1), np.int8),
    }
    with pytest.raises(
        ModelError, match=r"DequantizeLinear node dq_wd.*per block of 4.*per channel"
    ):
        from_onnx(pairs(nodes, weights))
