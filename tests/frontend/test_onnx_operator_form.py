"""Operators on codes against ONNX Runtime: the same codes within one step, from integer layers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from frontend.graphs import lowered, onnxruntime_outputs
from tvmcomp.compress.reference import run
from tvmcomp.errors import ModelError
from tvmcomp.flow import compile_model
from tvmcomp.frontend import from_onnx
from tvmcomp.graph.layers import FloatConv, LayerGraph, Opaque

F32 = np.float32
X = ((1, 8, 6, 6), "uint8", 0.05, 120)
RNG = np.random.default_rng(5)


def codes(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, shape).astype(dtype)


def numbers(prefix: str, scale: Any, zero: Any, dtype: str) -> dict[str, np.ndarray]:
    """Initializers PREFIX_s and PREFIX_z."""
    return {f"{prefix}_s": np.array(scale, F32), f"{prefix}_z": np.array(zero, dtype)}


def form(
    op: str,
    inputs: Mapping[str, tuple[tuple[int, ...], str]],
    operands: list[str],
    weights: Mapping[str, np.ndarray],
    *,
    domain: str = "",
    output: str = "uint8",
    opset: int = 17,
    **attributes: Any,
) -> onnx.ModelProto:
    """One operator on codes; its inputs and its output are codes, too."""
    types = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "float32": TensorProto.FLOAT}
    graph = helper.make_graph(
        [helper.make_node(op, operands, ["y"], name=f"the_{op}", domain=domain, **attributes)],
        "test",
        [helper.make_tensor_value_info(n, types[d], shape) for n, (shape, d) in inputs.items()],
        [helper.make_tensor_value_info("y", types[output], None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def integers(model: onnx.ModelProto) -> LayerGraph:
    """Its layers, none of them float: kernels equal the reference that runs them here."""
    graph = lowered(model)
    assert not any(isinstance(layer, FloatConv | Opaque) for layer in graph.layers)
    return graph


def check(model: onnx.ModelProto, steps: int = 1, at_least: float = 0.9) -> None:
    """Within `steps` of ONNX Runtime, which rounds its own way, and most codes equal."""
    layers = integers(model)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    feeds = {}
    for value in graph.input:
        if value.name not in weights:
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feeds[value.name] = codes(tuple(shape), str(dtype))
    (expected,) = onnxruntime_outputs(model, feeds)
    (actual,) = run(layers, feeds).values()
    assert actual.dtype == expected.dtype
    assert len(np.unique(expected)) > 10
    difference = np.abs(actual.astype(int) - expected.astype(int))
    assert difference.max() <= steps
    assert np.mean(difference == 0) >= at_least


@pytest.mark.parametrize(
    ("x", "w", "per_channel", "zero", "y"),
    [
        ("uint8", "int8", True, 0, "uint8"),
        ("int8", "int8", False, 0, "int8"),
        ("uint8", "uint8", False, 128, "uint8"),
        ("uint8", "uint8", True, 97, "uint8"),
        ("uint8", "int8", True, 5, "uint8"),
    ],
    ids=["u8s8", "s8s8", "u8u8", "u8u8 off centre", "u8s8 off centre"],
)
@pytest.mark.parametrize("opset", [10, 17])
def test_qlinear_conv(x: str, w: str, per_channel: bool, zero: int, y: str, opset: int) -> None:
    scale = RNG.uniform(0.001, 0.003, 12) if per_channel else 0.002
    zeros = np.full(12, zero) if per_channel else zero
    weights = {
        **numbers("x", 0.05, 120 if x == "uint8" else -7, x),
        "w": codes((12, 8, 3, 3), w),
        **numbers("w", scale, zeros, w),
        **numbers("y", 0.06, 131 if y == "uint8" else 9, y),
        "b": RNG.integers(-9000, 9000, 12).astype(np.int32),
    }
    operands = ["x", "x_s", "x_z", "w", "w_s", "w_z", "y_s", "y_z", "b"]
    pads = {"pads": [1, 1, 1, 1], "strides": [2, 1]}
    check(
        form(
            "QLinearConv",
            {"x": ((1, 8, 6, 6), x)},
            operands,
            weights,
            output=y,
            opset=opset,
            **pads,
        )
    )


@pytest.mark.parametrize("w", ["int8", "uint8"])
def test_qlinear_matmul(w: str) -> None:
    weights = {
        **numbers("x", 0.05, 120, "uint8"),
        "w": codes((16, 24), w),
        **numbers("w", 0.004, 3 if w == "int8" else 140, w),
        **numbers("y", 0.08, 90, "uint8"),
    }
    operands = ["x", "x_s", "x_z", "w", "w_s", "w_z", "y_s", "y_z"]
    check(form("QLinearMatMul", {"x": ((2, 5, 16), "uint8")}, operands, weights))


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("quantized", [True, False])
def test_qgemm(transposed: int, quantized: bool) -> None:
    weights = {
        **numbers("x", 0.05, 120, "uint8"),
        "w": codes((24, 16) if transposed else (16, 24), "int8"),
        **numbers("w", RNG.uniform(0.002, 0.006, 24), np.zeros(24), "int8"),
        "b": RNG.integers(-9000, 9000, 24).astype(np.int32),
    }
    operands = ["x", "x_s", "x_z", "w", "w_s", "w_z", "b"]
    attributes = {"domain": "com.microsoft", "transB": transposed}
    if quantized:
        weights |= numbers("y", 0.1, 90, "uint8")
        model = form(
            "QGemm", {"x": ((5, 16), "uint8")}, [*operands, "y_s", "y_z"], weights, **attributes
        )
        check(model)
        return
    model = form(
        "QGemm", {"x": ((5, 16), "uint8")}, operands, weights, output="float32", **attributes
    )
    x = codes((5, 16), "uint8")
    (expected,) = onnxruntime_outputs(model, {"x": x})
    (actual,) = run(integers(model), {"x": x}).values()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_binary(op: str, dtype: str) -> None:
    weights = {
        **numbers("a", 0.05, 20, dtype),
        **numbers("b", 0.03, 90, dtype),
        # Not 0.06: every sixth sum would be a tie, which float32 scales break either way.
        **numbers("y", 0.0617 if op == "QLinearAdd" else 0.2, 33, dtype),
    }
    inputs = {"a": ((1, 8, 5, 5), dtype), "b": ((1, 8, 5, 5), dtype)}
    operands = ["a", "a_s", "a_z", "b", "b_s", "b_z", "y_s", "y_z"]
    check(form(op, inputs, operands, weights, domain="com.microsoft", output=dtype))


UNARY: dict[str, tuple[float, dict[str, Any]]] = {
    "QLinearLeakyRelu": (0.05, {"alpha": 0.1}),
    "QLinearSigmoid": (0.004, {}),
    "QLinearGlobalAveragePool": (0.008, {"channels_last": 0}),
    "QLinearAveragePool": (0.03, {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [0, 1, 0, 1]}),
}


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_unary(op: str, dtype: str) -> None:
    scale, attributes = UNARY[op]
    middle = 127 if dtype == "uint8" else -1
    weights = {**numbers("x", 0.05, middle, dtype), **numbers("y", scale, middle - 9, dtype)}
    operands = ["x", "x_s", "x_z", "y_s", "y_z"]
    model = form(
        op, {"x": ((2, 8, 6, 6), dtype)}, operands, weights, domain="com.microsoft", output=dtype,
        **attributes,
    )  # fmt: skip
    check(model)


def test_concat_of_three_scales() -> None:
    weights = {**numbers("y", 0.06, 100, "uint8")}
    operands, inputs = ["y_s", "y_z"], {}
    for name, scale, zero in (("a", 0.06, 100), ("b", 0.03, 128), ("c", 0.05, 0)):
        weights |= numbers(name, scale, zero, "uint8")
        operands += [name, f"{name}_s", f"{name}_z"]
        inputs[name] = ((1, 4, 5, 5), "uint8")
    check(form("QLinearConcat", inputs, operands, weights, domain="com.microsoft", axis=-1))


def test_operators_between_codes_run_on_codes() -> None:
    """MaxPool, Transpose and Reshape on the codes of a QLinearConv, as ONNX Runtime's quantizer leaves them."""
    weights = {
        **numbers("x", 0.05, 120, "uint8"),
        "w": codes((12, 8, 1, 1), "int8"),
        **numbers("w", 0.004, 0, "int8"),
        **numbers("y", 0.06, 131, "uint8"),
        "shape": np.array([1, 108], np.int64),
    }
    model = form(
        "QLinearConv",
        {"x": ((1, 8, 6, 6), "uint8")},
        ["x", "x_s", "x_z", "w", "w_s", "w_z", "y_s", "y_z"],
        weights,
    )
    model.graph.node[0].output[0] = "c"
    model.graph.node.extend(
        [
            helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Transpose", ["p"], ["t"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", ["t", "shape"], ["y"]),
        ]
    )
    check(model)
    x = codes((1, 8, 6, 6), "uint8")
    (expected,) = run(integers(model), {"x": x}).values()
    np.testing.assert_array_equal(compile_model(from_onnx(model))(x), expected)


@pytest.mark.parametrize("border", ["y_z", "seven", ""], ids=["its zero point", "a code", "code 0"])
def test_a_pad_between_codes(border: str) -> None:
    """The quantizer of ONNX Runtime pads with the zero point; any code may be the border."""
    weights = {
        **numbers("x", 0.05, 120, "uint8"),
        "w": codes((12, 8, 1, 1), "int8"),
        **numbers("w", 0.004, 0, "int8"),
        **numbers("y", 0.06, 131, "uint8"),
        "pads": np.array([0, 0, 1, 0, 0, 0, 2, 1], np.int64),
        "seven": np.array(7, np.uint8),
    }
    operands = ["x", "x_s", "x_z", "w", "w_s", "w_z", "y_s", "y_z"]
    model = form("QLinearConv", {"x": ((1, 8, 6, 6), "uint8")}, operands, weights)
    model.graph.node[0].output[0] = "c"
    model.graph.node.append(
        helper.make_node("Pad", ["c", "pads", border] if border else ["c", "pads"], ["y"])
    )
    check(model)


def test_channels_last_is_refused() -> None:
    weights = {**numbers("x", 0.05, 10, "uint8"), **numbers("y", 0.05, 100, "uint8")}
    model = form(
        "QLinearGlobalAveragePool", {"x": ((2, 6, 6, 8), "uint8")}, ["x", "x_s", "x_z", "y_s", "y_z"],
        weights, domain="com.microsoft", channels_last=1,
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"the_QLinearGlobalAveragePool.*channels last.*NCHW"):
        from_onnx(model)
