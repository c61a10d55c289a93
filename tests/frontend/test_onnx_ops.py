"""Our own ONNX converters against ONNX Runtime: what TVM's importer lacks or gets wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvmcomp as tc
from frontend.graphs import node, onnxruntime_outputs
from tvmcomp.errors import ModelError

RNG = np.random.default_rng(0)
F32 = np.float32


def _values(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(F32)


@dataclass(frozen=True, eq=False)
class Case:
    """One operator: inputs are data, weights are stored."""

    op: str
    inputs: dict[str, np.ndarray]
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    operands: tuple[str, ...] = ()
    outputs: int = 1
    opset: int = 20
    attributes: dict[str, Any] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        """The operator alone in a graph, its results untyped."""
        names = [f"y{index}" for index in range(self.outputs)]
        operands = self.operands or (*self.inputs, *self.weights)
        graph = helper.make_graph(
            [node(self.op, list(operands), names, name="/op", **self.attributes)],
            "case",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
                )
                for name, array in self.inputs.items()
            ],
            [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in names],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10
        )
        inferred = onnx.shape_inference.infer_shapes(model)
        for value, known in zip(model.graph.output, inferred.graph.output, strict=True):
            value.type.tensor_type.elem_type = known.type.tensor_type.elem_type
        return model


def _resize(mode: str, scales: list[float] | None = None, **attributes: Any) -> Case:
    sizes = attributes.pop("sizes", None)
    given = {"scales": np.array(scales, F32)} if scales else {"sizes": np.array(sizes, np.int64)}
    operands = ("x", "", "scales") if scales else ("x", "", "", "sizes")
    if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        given["roi"] = np.array([0, 0, 0.2, 0.3, 1, 1, 0.9, 1.2], F32)
        operands = ("x", "roi", *operands[2:])
    return Case(
        "Resize",
        {"x": _values(1, 2, 5, 6)},
        given,
        operands,
        attributes={"mode": mode, **attributes},
    )


I64 = np.int64
CASES = {
    "resize cubic down": _resize("cubic", [1, 1, 0.7, 0.6]),
    "resize cubic without the outside": _resize(
        "cubic", [1, 1, 1.6, 1.3], exclude_outside=1, cubic_coeff_a=-0.5
    ),
    "resize linear by a factor that gives no whole size": _resize("linear", [1, 1, 0.7, 1.3]),
    "resize with antialiasing": _resize("linear", [1, 1, 0.5, 0.4], antialias=1),
    "resize a cropped region": _resize(
        "linear",
        sizes=[1, 2, 4, 4],
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=7.0,
    ),
    "resize nearest, rounding up": _resize("nearest", sizes=[1, 2, 7, 9], nearest_mode="ceil"),
    "resize keeping the aspect": _resize(
        "nearest", sizes=[8, 9], axes=[2, 3], keep_aspect_ratio_policy="not_larger"
    ),
    "resize three axes": Case(
        "Resize",
        {"x": _values(1, 1, 3, 4, 3)},
        {"scales": np.array([1, 1, 2, 1.5, 2], F32)},
        ("x", "", "scales"),
        attributes={"mode": "linear"},
    ),
    "top-k, of equal values the first": Case(
        "TopK",
        {"x": np.array([[3, 1, 3, 2, 3], [0, 0, 5, 5, 1]], F32)},
        {"k": np.array([3], I64)},
        outputs=2,
    ),
    "the smallest k along the first axis": Case(
        "TopK",
        {"x": RNG.integers(0, 5, (6, 3)).astype(I64)},
        {"k": np.array([4], I64)},
        outputs=2,
        attributes={"axis": 0, "largest": 0},
    ),
    "one-hot of negative and foreign indices": Case(
        "OneHot",
        {"x": np.array([0, -1, 3, 9, -9], I64), "values": np.array([2, 5], F32)},
        {"depth": np.array(4, I64)},
        ("x", "depth", "values"),
        attributes={"axis": 0},
    ),
    "cumulative sum, reverse and exclusive": Case(
        "CumSum",
        {"x": _values(3, 7)},
        {"axis": np.array(1, I64)},
        attributes={"reverse": 1, "exclusive": 1},
    ),
    "integer power": Case(
        "Pow",
        {"x": np.array([-3, -1, 0, 2, 7], np.int32), "e": np.array([3, 5, 0, 30, 2], np.int32)},
    ),
    "float to an integer power": Case("Pow", {"x": _values(4), "e": np.array([2, 3, 0, 1], I64)}),
    "remainder with the divisor's sign": Case(
        "Mod",
        {"x": np.array([-7, 7, -7, 7], np.int32), "y": np.array([3, 3, -3, -3], np.int32)},
    ),
    "max pool with positions": Case(
        "MaxPool",
        {"x": _values(1, 2, 7, 6)},
        outputs=2,
        attributes={"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]},
    ),
    "transposed convolution to a shape": Case(
        "ConvTranspose",
        {"x": _values(1, 4, 3, 3)},
        {"w": _values(4, 2, 3, 3)},
        attributes={"strides": [2, 2], "output_shape": [7, 7], "group": 2},
    ),
    "transposed convolution with everything": Case(
        "ConvTranspose",
        {"x": _values(1, 4, 5, 4)},
        {"w": _values(4, 3, 3, 2), "b": _values(6)},
        attributes={
            "strides": [2, 3],
            "pads": [1, 0, 0, 1],
            "output_padding": [1, 2],
            "dilations": [2, 1],
            "group": 2,
        },
    ),
    "convolution in one dimension": Case(
        "Conv",
        {"x": _values(1, 4, 9)},
        {"w": _values(6, 2, 3)},
        attributes={"strides": [2], "pads": [1, 2], "group": 2},
    ),
    "average pool in three dimensions, sizes rounded up": Case(
        "AveragePool",
        {"x": _values(1, 2, 5, 4, 6)},
        attributes={"kernel_shape": [2, 3, 2], "strides": [2, 2, 2], "ceil_mode": 1},
    ),
    "layer norm with its statistics": Case(
        "LayerNormalization",
        {"x": _values(2, 3, 8)},
        {"s": _values(8), "b": _values(8)},
        outputs=3,
        opset=17,
    ),
    "batch norm with computed statistics": Case(
        "BatchNormalization",
        {
            "x": _values(2, 3, 4, 4),
            "s": _values(3),
            "b": _values(3),
            "m": _values(3),
            "v": np.abs(_values(3)),
        },
    ),
    "one-sided Fourier transform": Case(
        "DFT", {"x": _values(1, 6, 10, 1)}, attributes={"onesided": 1}
    ),
    "short-time Fourier transform": Case(
        "STFT",
        {"x": _values(1, 20, 1)},
        {"step": np.array(4, I64), "window": np.hanning(8).astype(F32)},
    ),
    "infinities of one sign": Case(
        "IsInf", {"x": np.array([-np.inf, np.inf, 1], F32)}, attributes={"detect_negative": 0}
    ),
    "any of booleans": Case(
        "ReduceMax", {"x": RNG.random((3, 4)) > 0.7}, {"axes": np.array([1], I64)}
    ),
    "the largest of minus infinities": Case(
        "ReduceMax",
        {"x": np.array([[-np.inf, -np.inf], [-np.inf, 1]], F32)},
        {"axes": np.array([1], I64)},
    ),
    "nearest on a tie": _resize("nearest", sizes=[1, 2, 7, 8]),
    "bits of unsigned integers": Case(
        "BitShift",
        {"x": np.array([16, 2**31], np.uint32), "y": np.array([2, 31], np.uint32)},
        attributes={"direction": "RIGHT"},
    ),
    "bounds on integers": Case(
        "Clip",
        {"x": np.array([-(2**40), 5, 2**40], I64)},
        {"low": np.array(-(2**33), I64), "high": np.array(2**33, I64)},
    ),
    "a definition of the standard": Case(
        "NegativeLogLikelihoodLoss",
        {"x": _values(3, 5, 2), "t": RNG.integers(0, 5, (3, 2)).astype(I64), "w": _values(5)},
        attributes={"reduction": "mean"},
        opset=13,
    ),
    "half precision": Case("Softplus", {"x": _values(9).astype(np.float16)}),
    "a sequence in reverse": Case(
        "ReverseSequence",
        {"x": _values(4, 3), "n": np.array([4, 1, 2], I64)},
        attributes={"time_axis": 0, "batch_axis": 1},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_converted_as_onnxruntime_computes_it(name: str) -> None:
    case = CASES[name]
    model = case.model()
    want = onnxruntime_outputs(model, case.inputs)
    got = tc.compile(tc.from_onnx(model), golden=case.inputs).payload.golden_outputs
    assert len(got) == len(want)
    for ours, theirs in zip(got.values(), want, strict=True):
        assert ours.dtype == theirs.dtype
        tolerance = 2e-3 if theirs.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_whole_factors_stay_an_image_operator_with_integer_kernels() -> None:
    for mode in ("nearest", "linear"):
        assert "image.resize2d" in str(tc.from_onnx(_resize(mode, [1, 1, 2, 2]).model()).module)


def test_a_setting_that_depends_on_data_is_refused_by_name() -> None:
    model = Case("TopK", {"x": _values(5), "k": np.array([2], I64)}, outputs=2).model()
    with pytest.raises(
        ModelError, match=r"TopK node /op .*k depends on data; store it in the model"
    ):
        tc.from_onnx(model)


def test_results_that_are_constants_inputs_or_repeated() -> None:
    x = _values(2, 3)
    graph = helper.make_graph(
        [
            node("Shape", ["x"], ["shape"]),
            node("Relu", ["x"], ["y"]),
            node("Identity", ["w"], ["stored"]),
        ],
        "results",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape),
            helper.make_tensor_value_info("unused", TensorProto.INT32, (0, 3)),
        ],
        [
            helper.make_tensor_value_info("shape", TensorProto.INT64, None),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("stored", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.arange(3, dtype=F32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    inputs = {"x": x, "unused": np.zeros((0, 3), np.int32)}
    got = tc.compile(tc.from_onnx(model), golden=inputs).payload.golden_outputs
    np.testing.assert_array_equal(got["shape"], [2, 3])
    np.testing.assert_array_equal(got["y"], np.maximum(x, 0))
    np.testing.assert_array_equal(got["stored"], [0, 1, 2])


def test_an_empty_set_reduces_to_a_constant() -> None:
    graph = helper.make_graph(
        [node("ReduceMax", ["x", "axes"], ["y"], keepdims=0)],
        "empty",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 0, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 4))],
        [numpy_helper.from_array(np.array([1], I64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    inputs = {"x": np.zeros((2, 0, 4), F32)}
    (got,) = tc.compile(tc.from_onnx(model), golden=inputs).payload.golden_outputs.values()
    assert (got == -np.inf).all()
