"""Constants of an ONNX graph: what depends on no input is computed here, and sorted into weights and constants."""

from __future__ import annotations

from collections import Counter
from math import prod

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tvmcomp.errors import ModelError
from tvmcomp.frontend.onnx_empty import fold_empty
from tvmcomp.frontend.onnx_graph import describe, infer_shapes
from tvmcomp.frontend.signature import first_line

__all__ = ["explicit_pads", "fold_constants", "split_weights"]

_FOLD_ELEMENTS = 1 << 26
# Compressed weights stay compressed; random numbers are drawn on every run.
_NEVER = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan")
_SAME_WEIGHT = ("Identity", "Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze", "Flatten")

# Operand positions that hold a layer's weights; they stay parameters whatever their size or type.
_WEIGHTS = {
    "BatchNormalization": (1, 2, 3, 4),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DequantizeLinear": (0,),
    "Gather": (0,),
    "Gemm": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
}
# Operand positions that say what an operator does.
_SETTINGS = {
    "Clip": (1, 2),
    "DequantizeLinear": (1, 2),
    "Pad": (1, 2, 3),
    "QuantizeLinear": (1, 2),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
}


def fold_constants(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Replace nodes that depend on no input by initializers; returns the shapes of all values."""
    graph = model.graph
    while True:
        shapes = infer_shapes(model)
        if fold_empty(model, shapes):
            continue
        folded = _fold_once(model, shapes)
        if not folded:
            return shapes
        rest = [node for node in graph.node if node.output[0] not in folded]
        kept = [NodeProto.FromString(node.SerializeToString()) for node in rest]
        del graph.node[:]
        graph.node.extend(kept)
        taken = {tensor.name for tensor in graph.initializer}
        for name, array in folded.items():
            if name not in taken:
                graph.initializer.append(numpy_helper.from_array(array, name))
        _drop_unused(graph)


def _fold_once(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Output name -> value, for every output of a node to drop."""
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer}
    # A tensor without elements is known.
    empty = {
        value.name: np.zeros(shapes[value.name], _dtype(value))
        for value in graph.input
        if value.name not in known and 0 in shapes.get(value.name, ())
    }
    known.update(empty)
    feeds: dict[str, np.ndarray] = dict(empty)
    nodes = []
    for node in graph.node:
        if node.op_type in ("Shape", "Size") and node.input[0] in shapes:
            shape = np.array(shapes[node.input[0]], np.int64)
            start, end = (_attribute(node, key) for key in ("start", "end"))
            value = shape[start:end] if node.op_type == "Shape" else np.array(prod(shape.tolist()))
            feeds[node.output[0]] = value.astype(np.int64)
            known.update(node.output)
        elif _foldable(node, known, shapes):
            nodes.append(node)
            known.update(node.output)
    outputs = [name for node in nodes for name in node.output if name]
    result = {name: array for name, array in feeds.items() if name not in empty}
    if nodes:
        result |= _evaluate(model, nodes, outputs, feeds)
        _keep_names(graph, nodes, result)
    return result


def _dtype(value: onnx.ValueInfoProto) -> np.dtype:
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)


def _foldable(node: NodeProto, known: set[str], shapes: dict[str, tuple[int, ...]]) -> bool:
    if (
        node.op_type in _NEVER
        or node.op_type.startswith("Random")
        or node.domain not in ("", "ai.onnx")
    ):
        return False
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        return False
    if not all(name in known for name in node.input if name):
        return False
    return all(
        name in shapes and prod(shapes[name]) <= _FOLD_ELEMENTS for name in node.output if name
    )


def _evaluate(
    model: onnx.ModelProto,
    nodes: list[NodeProto],
    outputs: list[str],
    feeds: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    read = {name for node in nodes for name in node.input if name}
    own = set(outputs)
    arrays = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name in read
    }
    arrays |= {name: array for name, array in feeds.items() if name in read}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in arrays.items()
        if name not in own
    ]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "constants", inputs, results)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        with np.errstate(all="ignore"):
            values = ReferenceEvaluator(part).run(outputs, arrays)
    except Exception as error:
        names = ", ".join(describe(node) for node in nodes[:3])
        raise ModelError(
            f"constants cannot be computed ({names}): {first_line(error)}; correct them and export the model again"
        ) from error
    return {name: np.asarray(value) for name, value in zip(outputs, values, strict=True)}


def _keep_names(
    graph: onnx.GraphProto, nodes: list[NodeProto], result: dict[str, np.ndarray]
) -> None:
    """A weight that was only transposed, copied or cast keeps the name the user knows."""
    reads = Counter(name for node in graph.node for name in node.input)
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    for node in nodes:
        source = node.input[0] if node.input else ""
        source = renamed.get(source, source)
        tensor = initializers.get(source)
        if node.op_type not in _SAME_WEIGHT or tensor is None:
            continue
        if node.op_type == "Identity" or reads[source] == 1:
            renamed[node.output[0]] = source
            array = result[node.output[0]]
            tensor.CopyFrom(numpy_helper.from_array(array, source))
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def _drop_unused(graph: onnx.GraphProto) -> None:
    if any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute):
        return  # a subgraph may read any of them
    used = {name for node in graph.node for name in node.input}
    used |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    if len(kept) < len(graph.initializer):
        copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(copies)


def _attribute(node: NodeProto, name: str) -> int | None:
    return next((int(a.i) for a in node.attribute if a.name == name), None)


def explicit_pads(graph: onnx.GraphProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Replace `auto_pad` by the pads it means for these shapes."""
    for node in graph.node:
        if node.op_type == "ConvTranspose":
            _transposed_pads(node, shapes)
        if node.op_type not in ("Conv", "MaxPool", "AveragePool", "LpPool"):
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        mode = attributes.pop("auto_pad", b"NOTSET").decode()
        if mode == "NOTSET":
            continue
        size = shapes[node.input[0]][2:]
        kernel = attributes.get("kernel_shape") or shapes[node.input[1]][2:]
        strides = attributes.get("strides") or [1] * len(size)
        dilations = attributes.get("dilations") or [1] * len(size)
        before, after = [], []
        for length, window, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
            reach = (window - 1) * dilation + 1
            total = max((-(-length // stride) - 1) * stride + reach - length, 0)
            total = 0 if mode == "VALID" else total
            small, large = total // 2, total - total // 2
            before.append(large if mode == "SAME_LOWER" else small)
            after.append(small if mode == "SAME_LOWER" else large)
        attributes["pads"] = [*before, *after]
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(key, v) for key, v in attributes.items())


def _transposed_pads(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """The same for a transposed convolution, whose output may also be named by its shape."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    mode = attributes.pop("auto_pad", b"NOTSET").decode()
    wanted = attributes.pop("output_shape", None)
    if mode == "NOTSET" and wanted is None:
        return
    size = shapes[node.input[0]][2:]
    kernel = attributes.get("kernel_shape") or shapes[node.input[1]][2:]
    strides = attributes.get("strides") or [1] * len(size)
    dilations = attributes.get("dilations") or [1] * len(size)
    extra = list(attributes.get("output_padding") or [0] * len(size))
    before, after = [], []
    for axis, (length, stride) in enumerate(zip(size, strides, strict=True)):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        full = stride * (length - 1) + extra[axis] + reach
        out = full if mode == "VALID" else length * stride
        total = full - (wanted[axis - len(size)] if wanted else out)
        if total < 0:
            extra[axis], total = extra[axis] - total, 0
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    attributes["pads"] = [*before, *after]
    attributes["output_padding"] = extra
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(key, v) for key, v in attributes.items())


def split_weights(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Initializers that are weights, by name; the others become Constant nodes of the graph."""
    reads: dict[str, list[tuple[str, int]]] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            reads.setdefault(name, []).append((node.op_type, index))
    weights = {}
    constants = []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if _is_weight(array, reads.get(tensor.name, [])):
            weights[tensor.name] = array
        else:
            value = onnx.TensorProto.FromString(tensor.SerializeToString())
            constants.append(
                helper.make_node("Constant", [], [tensor.name], tensor.name, value=value)
            )
    kept = [tensor for tensor in graph.initializer if tensor.name in weights]
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.initializer[:]
    del graph.node[:]
    graph.initializer.extend(copies)
    graph.node.extend([*constants, *nodes])
    return weights


def _is_weight(array: np.ndarray, reads: list[tuple[str, int]]) -> bool:
    if any(index in _WEIGHTS.get(op, ()) for op, index in reads):
        return True
    if any(index in _SETTINGS.get(op, ()) for op, index in reads):
        return False
    return array.dtype.kind == "f" and array.size > 1
