"""ONNX models built by hand, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tvmcomp.build.lower import lower
from tvmcomp.compress.quantize import adopt_weights
from tvmcomp.frontend import from_onnx
from tvmcomp.graph.canonical import canonicalize
from tvmcomp.graph.layers import LayerGraph

__all__ = ["conv_net", "lowered", "make", "node", "onnxruntime_outputs"]

node = helper.make_node


def make(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str] = ("y",),
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    dtype: int = TensorProto.FLOAT,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model whose results have no declared shape; None and strings are dynamic dimensions."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    for value in graph.output:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    opsets = [helper.make_opsetid(domain, opset if not domain else 1) for domain in ("", *domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def conv_net(shape: Sequence[int | str | None] = (1, 3, 8, 8)) -> onnx.ModelProto:
    """y = relu(conv(x, conv.weight, conv.bias))"""
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.standard_normal(4).astype(np.float32),
    }
    nodes = [
        node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], name="/conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["y"], name="/relu"),
    ]
    return make(nodes, {"x": shape}, weights=weights)


def lowered(model: onnx.ModelProto) -> LayerGraph:
    """The layers of a model as the build makes them, without compiling any."""
    return lower(adopt_weights(canonicalize(from_onnx(model))))


def onnxruntime_outputs(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """The results without graph optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(inputs))
