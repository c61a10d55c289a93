from __future__ import annotations

import gc
import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from frontend.graphs import conv_net, make, node, onnxruntime_outputs
from toys import run
from tvmcomp.errors import ModelError
from tvmcomp.frontend import from_onnx
from tvmcomp.frontend.block import op_name
from tvmcomp.model import Model, TensorType

F32 = np.float32


def ops(model: Model) -> list[str]:
    (block,) = model.module["main"].body.blocks
    return [op_name(binding.value) for binding in block.bindings]


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def test_names_signature_and_provenance(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(conv_net().SerializeToString())
    model = from_onnx(path)
    assert list(model.params) == ["conv.weight", "conv.bias"]
    assert dict(model.signature.inputs) == {"x": TensorType((1, 3, 8, 8), "float32")}
    assert dict(model.signature.outputs) == {"y": TensorType((1, 4, 8, 8), "float32")}
    assert [str(var.name) for var in model.module["main"].params] == ["x", *model.params]
    assert model.provenance.source == str(path)
    assert model.provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.provenance.framework == "onnx"


def test_the_given_proto_is_left_alone():
    proto = conv_net(("batch", 3, 8, 8))
    before = proto.SerializeToString(deterministic=True)
    from_onnx(proto, input_shapes={"x": (2, 3, 8, 8)})
    assert proto.SerializeToString(deterministic=True) == before


def test_names_that_are_no_identifiers_survive():
    weights = {"onnx::Conv_117": normal(4, 3, 1, 1), "Conv_117": normal(4)}
    nodes = [node("Conv", ["input.1", *weights], ["115"])]
    model = from_onnx(make(nodes, {"input.1": (1, 3, 4, 4)}, ["115"], weights))
    assert list(model.params) == ["onnx::Conv_117", "Conv_117"]
    assert list(model.signature.inputs) == ["input.1"]
    assert list(model.signature.outputs) == ["115"]


def test_several_outputs_keep_their_order():
    nodes = [node("Relu", ["x"], ["a"]), node("Exp", ["x"], ["b"])]
    proto = make(nodes, {"x": (2, 3)}, ["b", "a"])
    model = from_onnx(proto)
    x = {"x": normal(2, 3)}
    outputs = run(model)(x)
    assert list(outputs) == ["b", "a"]
    for actual, expected in zip(outputs.values(), onnxruntime_outputs(proto, x), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def shape_chain() -> onnx.ModelProto:
    """reshape(x, [x.shape[0], -1]) as PyTorch exports it."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"], axis=0),
        node("Unsqueeze", ["batch", "axes"], ["batch1"]),
        node("Concat", ["batch1", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    ]
    weights = {"zero": np.array(0, np.int64), "axes": i64(0), "rest": i64(-1)}
    return make(nodes, {"x": ("n", 3, 4)}, weights=weights)


# What TVM must be left with, and a model that says it in a roundabout way.
CONSTANTS = {
    "shape chain": (["reshape"], shape_chain()),
    "reshape by an initializer": (
        ["reshape"],
        make([node("Reshape", ["x", "s"], ["y"])], {"x": (2, 3, 4)}, weights={"s": i64(0, 12)}),
    ),
    "computed pads": (
        ["nn.pad"],
        make(
            [node("Concat", ["a", "b"], ["p"], axis=0), node("Pad", ["x", "p", "v"], ["y"])],
            {"x": (2, 3, 4)},
            weights={"a": i64(0, 0, 1), "b": i64(0, 1, 2), "v": np.array(0.5, F32)},
        ),
    ),
    "pads of some axes": (
        ["nn.pad"],
        make(
            [node("Pad", ["x", "p", "", "a"], ["y"], mode="edge")],
            {"x": (2, 3, 4)},
            weights={"p": i64(1, 2), "a": i64(-1)},
            opset=18,
        ),
    ),
    "clip bounds": (
        ["clip"],
        make(
            [node("Clip", ["x", "low", "high"], ["y"])],
            {"x": (2, 3, 4)},
            weights={"low": np.array(-0.5, F32), "high": np.array(0.5, F32)},
        ),
    ),
    "clip without a lower bound": (
        ["clip"],
        make([node("Clip", ["x", "", "h"], ["y"])], {"x": (2,)}, weights={"h": np.array(0.5, F32)}),
    ),
    "clip before opset 11": (
        ["clip"],
        make([node("Clip", ["x"], ["y"], min=-0.5, max=0.5)], {"x": (2, 3, 4)}, opset=10),
    ),
    "slice by computed bounds": (
        ["strided_slice"],
        make(
            [node("Add", ["a", "a"], ["b"]), node("Slice", ["x", "a", "b", "axes"], ["y"])],
            {"x": (2, 3, 4)},
            weights={"a": i64(1), "axes": i64(2)},
        ),
    ),
    "upsampling by scales": (
        ["image.resize2d"],
        make(
            [node("Resize", ["x", "", "scales"], ["y"], mode="nearest", nearest_mode="floor")],
            {"x": (1, 2, 3, 3)},
            weights={"scales": np.array([1, 1, 2, 2], F32)},
        ),
    ),
    "expand to a shape of x": (
        ["broadcast_to"],
        make(
            [
                node("Shape", ["x"], ["s"]),
                node("Relu", ["z"], ["r"]),
                node("Expand", ["r", "s"], ["y"]),
            ],
            {"x": (2, 3, 4), "z": (1, 3, 1)},
        ),
    ),
    "maximum of three": (
        ["maximum", "maximum"],
        make([node("Max", ["x", "a", "b"], ["y"])], {"x": (2,), "a": (2,), "b": (1,)}),
    ),
    "tile": (
        ["tile"],
        make([node("Tile", ["x", "r"], ["y"])], {"x": (2, 3)}, weights={"r": i64(2, 1)}),
    ),
}


@pytest.mark.parametrize("case", CONSTANTS)
def test_settings_are_constants(case):
    expected_ops, proto = CONSTANTS[case]
    shapes = {
        value.name: tuple(d.dim_value or 2 for d in value.type.tensor_type.shape.dim)
        for value in proto.graph.input
    }
    dynamic = {name: shape for name, shape in shapes.items() if case == "shape chain"}
    model = from_onnx(proto, input_shapes=dynamic)
    assert not model.params
    assert [op for op in ops(model) if op != "nn.relu"] == expected_ops
    inputs = {name: normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    # An input that only gave its shape is still an input.
    (actual,) = run(model)(inputs).values()
    (expected,) = onnxruntime_outputs(proto, inputs)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool"])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_auto_pad(op, auto_pad, stride):
    weights = {"w": normal(4, 2, 3, 4)} if op == "Conv" else {}
    options = {"auto_pad": auto_pad, "strides": [stride, stride], "kernel_shape": [3, 4]}
    nodes = [node(op, ["x", *weights], ["y"], **options)]
    proto = make(nodes, {"x": (1, 2, 7, 8)}, weights=weights)
    x = {"x": normal(1, 2, 7, 8)}
    (actual,) = run(from_onnx(proto))(x).values()
    (expected,) = onnxruntime_outputs(proto, x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_weight_that_was_prepared_keeps_its_name():
    nodes = [
        node("Identity", ["fc.weight"], ["copy"]),
        node("Transpose", ["copy"], ["w"], perm=[1, 0]),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    proto = make(nodes, {"x": (2, 4)}, weights={"fc.weight": normal(3, 4)})
    model = from_onnx(proto)
    assert ops(model) == ["matmul"]
    np.testing.assert_array_equal(model.params["fc.weight"], normal(3, 4).T)


def test_a_weight_read_twice_is_not_changed_for_the_other():
    nodes = [
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["a", "t"], ["y"]),
    ]
    proto = make(nodes, {"x": (2, 4)}, weights={"w": normal(4, 3)})
    x = {"x": normal(2, 4, seed=1)}
    (actual,) = run(from_onnx(proto))(x).values()
    np.testing.assert_allclose(actual, onnxruntime_outputs(proto, x)[0], rtol=1e-4)


def test_quantized_weights_stay_quantized():
    codes = np.arange(-36, 36, dtype=np.int8).reshape(4, 2, 3, 3)
    weights = {"w": codes, "s": np.full(4, 0.1, F32), "z": np.zeros(4, np.int8)}
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0),
        node("Conv", ["x", "d"], ["y"], pads=[1, 1, 1, 1]),
    ]
    model = from_onnx(make(nodes, {"x": (1, 2, 4, 4)}, weights=weights))
    assert ops(model) == ["dequantize", "nn.conv2d"]
    assert list(model.params) == ["w"]
    np.testing.assert_array_equal(model.params["w"], codes)


def test_nodes_in_any_order():
    proto = conv_net()
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in proto.graph.node][::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert ops(from_onnx(proto)) == ["nn.conv2d", "reshape", "add", "nn.relu"]


def test_local_functions_are_inlined():
    opset = [helper.make_opsetid("", 17)]
    body = [node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["b"])]
    function = helper.make_function("mine", "Swish", ["a"], ["b"], body, opset)
    proto = make([node("Swish", ["x"], ["y"], domain="mine")], {"x": (2, 3)}, domains=["mine"])
    proto.functions.append(function)
    assert ops(from_onnx(proto)) == ["sigmoid", "multiply"]


def test_dynamic_dimensions():
    proto = conv_net(("batch", 3, None, 8))
    with pytest.raises(ModelError, match=r"--input-shape x=1,3,1,8"):
        from_onnx(proto)
    model = from_onnx(proto, input_shapes={"x": (2, 3, 6, 8)})
    assert model.signature.inputs["x"].shape == (2, 3, 6, 8)
    assert model.signature.outputs["y"].shape == (2, 4, 6, 8)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1, 3, 8, 8)}, "has no input 'z'; its inputs: x"),
        ({"x": (1, 3, 8)}, r"declared \[\?,3,\?,8\], --input-shape asks for \[1,3,8\]"),
        ({"x": (1, 4, 8, 8)}, "only dynamic dimensions can be chosen"),
        ({"x": (0, 3, 8, 8)}, "every dimension must be positive"),
        ({"x": (1, 3, -8, 8)}, "every dimension must be positive"),
        ({"x": (1 << 20, 3, 1 << 20, 8)}, "GiB"),
    ],
)
def test_input_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(ModelError, match=message):
        from_onnx(conv_net(("batch", 3, None, 8)), input_shapes=shapes)


def test_a_refused_graph_leaves_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv_c")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(ModelError, match="conv_c"):
        from_onnx(model)
    gc.collect()
    assert capfd.readouterr().err == ""
