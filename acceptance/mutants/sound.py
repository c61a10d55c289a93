"""Small sound networks that mutations start from, and helpers to build them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

__all__ = ["build", "initializer", "node", "save", "sound", "weight"]

Shape = Sequence[int | str]
node = helper.make_node


def weight(seed: int, *shape: int) -> np.ndarray:
    """Normal float32 values."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def build(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Shape | tuple[int, Shape]],
    weights: Mapping[str, np.ndarray | TensorProto],
    outputs: Sequence[str] = ("y",),
    *,
    opset: int = 18,
) -> onnx.ModelProto:
    """A model; an input is a float32 shape or (element type, shape), results have no declared shape."""
    values = []
    for name, kind in inputs.items():
        typed = len(kind) == 2 and not isinstance(kind[1], int | str)
        element, shape = kind if typed else (TensorProto.FLOAT, kind)
        values.append(helper.make_tensor_value_info(name, element, shape))
    tensors = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)
        for name, value in weights.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(list(nodes), "net", values, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def _images() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], "the_conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["b"], "the_norm"),
        node("Relu", ["b"], ["r"], "the_relu"),
        node("MaxPool", ["r"], ["p"], "the_pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"], "the_flatten", axis=1),
        node("Gemm", ["f", "head.weight", "head.bias"], ["y"], "the_head", transB=1),
    ]
    weights = {
        "conv.weight": weight(0, 4, 3, 3, 3), "conv.bias": weight(1, 4), "scale": weight(2, 4),
        "shift": weight(3, 4), "mean": weight(4, 4), "var": np.abs(weight(5, 4)) + 0.5,
        "head.weight": weight(6, 5, 64), "head.bias": weight(7, 5),
    }  # fmt: skip
    return build(nodes, {"x": (1, 3, 8, 8)}, weights)


def _rows() -> onnx.ModelProto:
    nodes = [
        node("MatMul", ["x", "first.weight"], ["m"], "the_matmul"),
        node("Add", ["m", "first.bias"], ["a"], "the_add"),
        node("Reshape", ["a", "sizes"], ["s"], "the_reshape"),
        node("Transpose", ["s"], ["t"], "the_transpose", perm=[0, 2, 1]),
        node("Split", ["t", "parts"], ["u", "v"], "the_split", axis=1),
        node("Concat", ["v", "u"], ["k"], "the_concat", axis=1),
        node("Gather", ["k", "rows"], ["g"], "the_gather", axis=1),
        node("Softmax", ["g"], ["y"], "the_softmax", axis=-1),
    ]
    weights = {
        "first.weight": weight(0, 6, 8), "first.bias": weight(1, 8),
        "sizes": np.array([2, 2, 4]), "parts": np.array([1, 3]), "rows": np.array([0, -1, 2]),
    }  # fmt: skip
    return build(nodes, {"x": (2, 6)}, weights)


def _quantized() -> onnx.ModelProto:
    nodes = [
        node("QuantizeLinear", ["x", "x.scale", "x.zero"], ["q"], "the_quantize"),
        node("DequantizeLinear", ["q", "x.scale", "x.zero"], ["d"], "the_dequantize"),
        node("DequantizeLinear", ["w", "w.scale", "w.zero"], ["e"], "the_weight", axis=0),
        node("Conv", ["d", "e"], ["y"], "the_conv", pads=[1, 1, 1, 1]),
    ]
    codes = np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    weights = {
        "x.scale": np.array(0.05, np.float32), "x.zero": np.array(128, np.uint8), "w": codes,
        "w.scale": np.full(4, 0.01, np.float32), "w.zero": np.zeros(4, np.int8),
    }  # fmt: skip
    return build(nodes, {"x": (1, 3, 8, 8)}, weights)


_SOUND = (_images, _rows, _quantized)


def sound(rng: Random, *kinds: int) -> onnx.ModelProto:
    """One of the networks; `kinds`: 0 images, 1 rows, 2 quantized."""
    return _SOUND[rng.choice(kinds or range(len(_SOUND)))]()


def initializer(model: onnx.ModelProto, name: str) -> TensorProto:
    """The stored tensor of that name."""
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def save(model: onnx.ModelProto) -> bytes:
    """The file."""
    return bytes(model.SerializeToString())
