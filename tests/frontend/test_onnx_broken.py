from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from frontend.graphs import conv_net, make, node
from tvmcomp.errors import ModelError
from tvmcomp.frontend import from_onnx

F32 = np.float32


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(F32)


def cyclic() -> onnx.ModelProto:
    nodes = [
        node("Add", ["x", "c"], ["a"], name="first"),
        node("Relu", ["a"], ["b"], name="second"),
        node("Exp", ["b"], ["c"], name="third"),
        node("Relu", ["b"], ["y"], name="last"),
    ]
    return make(nodes, {"x": (2,)})


def branch() -> onnx.ModelProto:
    value = helper.make_tensor_value_info("t", TensorProto.FLOAT, [2])
    graph = helper.make_graph([node("Relu", ["x"], ["t"])], "b", [], [value])
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Cast", ["sum"], ["flag"], to=TensorProto.BOOL),
        node("If", ["flag"], ["y"], then_branch=graph, else_branch=graph),
    ]
    return make(nodes, {"x": (2,)})


def nan_weight() -> onnx.ModelProto:
    proto = conv_net()
    array = np.frombuffer(proto.graph.initializer[0].raw_data, F32).copy()
    array[3:5] = np.nan, np.inf
    proto.graph.initializer[0].raw_data = array.tobytes()
    return proto


def short_weight() -> onnx.ModelProto:
    proto = conv_net()
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    return proto


def huge_weight() -> onnx.ModelProto:
    proto = conv_net()
    proto.graph.initializer[0].dims[0] = 1 << 40
    return proto


def negative_weight() -> onnx.ModelProto:
    proto = conv_net()
    proto.graph.initializer[0].dims[0] = -4
    return proto


def codes(scale: np.ndarray, zero: np.ndarray) -> onnx.ModelProto:
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["d"], name="weight", axis=0),
        node("Add", ["x", "d"], ["y"]),
    ]
    weights = {"w": np.ones((4, 3), np.int8), "s": scale, "z": zero}
    return make(nodes, {"x": (4, 3)}, weights=weights)


BROKEN = {
    "unsupported operator": (
        make([node("Det", ["x"], ["y"], name="/head/Det")], {"x": (3, 3)}),
        "operator Det of Det node /head/Det is not supported; its inputs: x",
    ),
    "foreign domain": (
        make([node("Relu", ["x"], ["y"], domain="acme")], {"x": (3,)}, domains=["acme"]),
        "operator acme.Relu of Relu node giving y is not supported",
    ),
    "cyclic": (cyclic(), "cyclic: .*first.*second.*third"),
    "undefined operand": (
        make([node("Add", ["x", "nowhere"], ["y"], name="sum")], {"x": (2,)}),
        "Add node sum reads nowhere, which no node, input or initializer gives",
    ),
    "undefined output": (
        make([node("Relu", ["x"], ["a"])], {"x": (2,)}),
        "output y is not computed",
    ),
    "two producers": (
        make([node("Relu", ["x"], ["y"]), node("Exp", ["x"], ["y"])], {"x": (2,)}),
        "value y is computed by 2 nodes",
    ),
    "no outputs": (make([node("Relu", ["x"], ["y"])], {"x": (2,)}, []), "no outputs"),
    "operands that do not fit": (
        make([node("Add", ["x", "z"], ["y"], name="sum")], {"x": (2,), "z": (3,)}),
        "do not fit together.*sum",
    ),
    "channels that do not fit": (
        make(
            [node("Conv", ["x", "w"], ["y"], name="/conv")],
            {"x": (1, 3, 8, 8)},
            weights={"w": normal(4, 2, 3, 3)},
        ),
        "Conv node /conv|do not fit",
    ),
    "matmul that does not fit": (
        make([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 3)}, weights={"w": normal(4, 5)}),
        "do not fit together",
    ),
    "unknown attribute": (
        make([node("Relu", ["x"], ["y"], slope=3)], {"x": (2,)}),
        "Unrecognized attribute: slope",
    ),
    "branch": (branch(), "chooses its branch by data"),
    "NaN weight": (nan_weight(), "conv.weight holds 2 values that are NaN or infinite"),
    "short weight": (short_weight(), "conv.weight does not hold the values of a float tensor"),
    "huge weight": (huge_weight(), "conv.weight.*GiB"),
    "negative weight": (negative_weight(), "conv.weight.*negative"),
    "negative input": (conv_net((1, 3, -8, 8)), "every dimension must be positive"),
    "zero input": (conv_net((1, 3, 0, 8)), "every dimension must be positive"),
    "empty result": (
        make([node("Slice", ["x", "a", "a"], ["y"])], {"x": (4,)}, weights={"a": i64(2)}),
        "output y has shape .0., every dimension must be positive",
    ),
    "huge constant": (
        make(
            [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])],
            {"x": (1,)},
            weights={"s": i64(1 << 20, 1 << 20)},
        ),
        "ConstantOfShape node giving c makes 1099511627776 elements, .* at most .*; correct",
    ),
    "overflowing shape": (
        make([node("Expand", ["x", "s"], ["y"])], {"x": (1,)}, weights={"s": i64(1 << 62, 4)}),
        "Expand node giving y makes 18446744073709551616 elements",
    ),
    "endless vector": (
        make([node("Expand", ["x", "s"], ["y"])], {"x": (1,)}, weights={"s": i64(1 << 31)}),
        "Expand node giving y makes 2147483648 elements, it may make at most 16777216",
    ),
    "endless vector beside a shape from data": (
        make(
            [
                node("NonZero", ["z"], ["n"]),
                node("Cast", ["n"], ["c"], to=TensorProto.FLOAT),
                node("Add", ["x", "x"], ["y"]),
            ],
            {"x": (1 << 25,), "z": (2, 2)},
            ["c", "y"],
        ),
        "Add node giving y reads x, a vector of 33554432 elements, .* at most 16777216",
    ),
    "reflection past the end": (
        make(
            [node("Pad", ["x", "p"], ["y"], mode="reflect")], {"x": (4,)}, weights={"p": i64(0, 4)}
        ),
        r"Pad node giving y .*pads \[0, 4\] of an axis of length 4 in mode reflect; use 0 to 3",
    ),
    "scale that is no number": (
        make(
            [
                node("QuantizeLinear", ["x", "s"], ["q"]),
                node("DequantizeLinear", ["q", "s"], ["y"]),
            ],
            {"x": (4,)},
            weights={"s": np.array(np.nan, F32)},
        ),
        "QuantizeLinear node giving q has the scale nan in s, .* positive, or makes .* not finite; correct it",
    ),
    "scale whose codes leave float32": (
        codes(np.array([0.1, 1e38, 0.1, 0.1], F32), np.zeros(4, np.int8)),
        r"DequantizeLinear node weight has the scale 1e\+38 in s, .* not finite; correct it",
    ),
    "zero point of another shape": (
        codes(np.full(4, 0.1, F32), np.array(0, np.int8)),
        r"DequantizeLinear node weight has scale and zero point of shapes \[4\] and \[\] in s and z; store",
    ),
    "scale of two axes": (
        codes(np.full((4, 1), 0.1, F32), np.zeros((4, 1), np.int8)),
        r"DequantizeLinear node weight has .* shapes \[4, 1\] and \[4, 1\] in s and z; store",
    ),
    "line break in a name": (
        make([node("Det", ["x"], ["y"], name="a\nb")], {"x": (2, 3)}),
        "Det node a b",
    ),
    "shape from data": (
        make([node("NonZero", ["x"], ["n"]), node("Cast", ["n"], ["y"], to=1)], {"x": (4,)}),
        "depends on data",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_models(case, capsys):
    proto, message = BROKEN[case]
    with pytest.raises(ModelError, match=message) as caught:
        from_onnx(proto)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("scale", "zero"), [((), (1,)), ((1,), ()), ((4,), (4,)), ((1,), (1,))])
def test_shapes_a_scale_and_its_zero_point_may_have(
    scale: tuple[int, ...], zero: tuple[int, ...]
) -> None:
    model = from_onnx(codes(np.full(scale, 0.1, F32), np.zeros(zero, np.int8)))
    assert model.signature.outputs["y"].shape == (4, 3)


def test_a_long_vector_is_no_shape_where_all_shapes_are_known() -> None:
    model = from_onnx(make([node("Add", ["x", "x"], ["y"])], {"x": (1 << 25,)}))
    assert model.signature.outputs["y"].shape == (1 << 25,)


def test_an_input_may_be_an_output() -> None:
    model = from_onnx(make([node("Relu", ["x"], ["y"])], {"x": (2, 3)}, ["y", "x"]))
    assert [tensor.shape for tensor in model.signature.outputs.values()] == [(2, 3), (2, 3)]
