"""Checks and normalisation of an ONNX graph before conversion: order, shapes, constants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import prod

import onnx
from onnx import NodeProto, helper

from tvmcomp.errors import ModelError
from tvmcomp.frontend.signature import first_line, specialised

__all__ = [
    "MAX_COMPUTED",
    "check",
    "check_operators",
    "check_windows",
    "describe",
    "fix_inputs",
    "infer_shapes",
    "name_nodes",
    "sort_nodes",
    "without_weights",
]

# A large tensor's values never decide a shape; inference copies the model, so they stay out of it.
_INFERENCE_ELEMENTS = 4096

# ONNX's inference holds every element of a computed shape or range as a message of its own.
MAX_COMPUTED = 1 << 24
_SHAPE_ARITHMETIC = ("Add", "Concat", "Gather", "Mul", "Slice", "Sub", "Unsqueeze")

# As much of a name as a message shows.
_NAME = 100


def describe(node: NodeProto) -> str:
    """`Conv node /layer1/Conv`, for messages."""
    name = node.name or "giving " + ", ".join(node.output)
    return f"{node.op_type} node {name[:_NAME]}"


def name_nodes(graph: onnx.GraphProto) -> None:
    """Nodes without a name are called after what they give."""
    for node in graph.node:
        node.name = node.name or f"giving {', '.join(node.output)}"


def check_windows(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A convolution's declared window is its weight's."""
    for node in graph.node:
        declared = next((list(a.ints) for a in node.attribute if a.name == "kernel_shape"), None)
        if node.op_type not in ("Conv", "ConvTranspose") or declared is None:
            continue
        window = list(shapes.get(node.input[1], ())[2:])
        if node.input[1] in shapes and declared != window:
            raise ModelError(
                f"{describe(node)} declares kernel_shape {declared}, "
                f"its weight {node.input[1]} has {window}; remove the attribute"
            )


def check_operators(graph: onnx.GraphProto, supported: Callable[[NodeProto], bool]) -> None:
    """Every operator is one that can be imported, in subgraphs too."""
    for node in graph.node:
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                check_operators(body, supported)
        if supported(node):
            continue
        domain = "" if node.domain == "ai.onnx" else node.domain
        name = f"{domain}.{node.op_type}" if domain else node.op_type
        raise ModelError(
            f"operator {name} of {describe(node)} is not supported; "
            f"its inputs: {', '.join(name[:_NAME] for name in node.input) or 'none'}; replace it in the source model"
        )


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes in topological order; each value has one producer and every operand exists."""
    _refuse_twice("input", (value.name for value in graph.input))
    _refuse_twice("initializer", (tensor.name for tensor in graph.initializer))
    _refuse_twice("output", (value.name for value in graph.output))
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    produced = Counter(name for node in graph.node for name in node.output if name)
    repeated = [name for name, count in produced.items() if count > 1]
    if repeated:
        raise ModelError(
            f"value {repeated[0]} is computed by {produced[repeated[0]]} nodes; rename all but one"
        )
    for node in graph.node:
        for name in _reads(node):
            if name not in produced and name not in known:
                raise ModelError(
                    f"{describe(node)} reads {name}, which no node, input or initializer gives; "
                    "connect it or export the model again"
                )
    for value in graph.output:
        if value.name not in produced and value.name not in known:
            raise ModelError(
                f"output {value.name} is not computed by the graph; remove it or connect it"
            )
    ready = set(known)
    pending = list(graph.node)
    ordered: list[NodeProto] = []
    while pending:
        waiting = []
        for node in pending:
            if all(name in ready for name in _reads(node)):
                ordered.append(node)
                ready.update(node.output)
            else:
                waiting.append(node)
        if len(waiting) == len(pending):
            cycle = " -> ".join(node.name or node.output[0] for node in _cycle(waiting))
            raise ModelError(f"the graph is cyclic: {cycle}; remove one of these connections")
        pending = waiting
    if [id(node) for node in ordered] != [id(node) for node in graph.node]:
        copies = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del graph.node[:]
        graph.node.extend(copies)


def _refuse_twice(what: str, names: Iterable[str]) -> None:
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    if count > 1:
        raise ModelError(f"{what} {name} is declared {count} times; rename or remove all but one")


def _reads(node: NodeProto) -> list[str]:
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            own = {name for inner in graph.node for name in inner.output}
            own |= {tensor.name for tensor in graph.initializer}
            own |= {value.name for value in graph.input}
            names += [name for inner in graph.node for name in _reads(inner) if name not in own]
    return names


def _cycle(nodes: list[NodeProto]) -> list[NodeProto]:
    """Nodes of one cycle: each of `nodes` waits for another of them."""
    producer = {name: node for node in nodes for name in node.output}
    path: list[NodeProto] = [nodes[0]]
    while True:
        step = next(producer[name] for name in _reads(path[-1]) if name in producer)
        for index, node in enumerate(path):
            if node is step:
                return [*path[index:], step][::-1]
        path.append(step)


def fix_inputs(graph: onnx.GraphProto, input_shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Give every input a static shape; returns the names of the real inputs in order."""
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    unknown = input_shapes.keys() - {value.name for value in inputs}
    if unknown:
        names = ", ".join(value.name for value in inputs)
        raise ModelError(
            f"the model has no input {min(unknown)!r}; its inputs: {names}; use one of these names"
        )
    for value in inputs:
        if not value.type.HasField("tensor_type"):
            raise ModelError(
                f"input {value.name} is not a tensor; export the model with tensors only"
            )
        tensor_type = value.type.tensor_type
        wanted = input_shapes.get(value.name)
        if not tensor_type.HasField("shape"):
            if wanted is None:
                raise ModelError(
                    f"input {value.name} has no shape; fix it with --input-shape {value.name}=..."
                )
            declared: list[int | object] = list(wanted)
        else:
            declared = [
                int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param
                for dim in tensor_type.shape.dim
            ]
        shape = specialised(value.name, declared, wanted)
        value.CopyFrom(helper.make_tensor_value_info(value.name, tensor_type.elem_type, shape))
    # Declared results may still say "batch" or the shapes before specialisation.
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    return [value.name for value in inputs]


def infer_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Name -> static shape of every value inference finds; a contradiction is a ModelError."""
    slim = without_weights(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(slim, check_type=True, strict_mode=True)
        shapes = _static_shapes(inferred)
        if any(name and name not in shapes for node in slim.graph.node for name in node.output):
            _check_rows(slim.graph, shapes)
            inferred = onnx.shape_inference.infer_shapes(slim, data_prop=True)
            shapes = _static_shapes(inferred)
    except ModelError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise ModelError(
            f"shapes do not fit together: {first_line(ValueError(text))}; "
            "correct the node in the source model and export it again"
        ) from None
    for tensor in model.graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
    return shapes


def _static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = model.graph
    values = [*graph.input, *graph.value_info, *graph.output]
    # An input that is an output too stands here twice, once without a shape.
    shapes = ((value.name, _static_shape(value)) for value in values)
    return {name: shape for name, shape in shapes if shape is not None}


def _check_rows(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """What follows a shape's numbers through a graph takes every vector for a shape, whatever its type."""
    for node in graph.node:
        for name in node.input if node.op_type in _SHAPE_ARITHMETIC else ():
            shape = shapes.get(name, ())
            if len(shape) == 1 and shape[0] > MAX_COMPUTED:
                raise ModelError(
                    f"{describe(node)} reads {name}, a vector of {shape[0]} elements, where shapes are "
                    f"computed; it may have at most {MAX_COMPUTED}: give it a second axis or fix the shapes"
                )


def _static_shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """The shape of a value if every dimension is a number."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    dims = value.type.tensor_type.shape.dim
    return (
        tuple(int(d.dim_value) for d in dims)
        if all(d.HasField("dim_value") for d in dims)
        else None
    )


def check(model: onnx.ModelProto) -> None:
    """The ONNX checker's rules: known attributes, numbers of operands, one opset per domain."""
    # The checker wants a shape for every result; where the file declares none, inference knows it.
    try:
        inferred = onnx.shape_inference.infer_shapes(without_weights(model))
    except Exception:
        return  # The inference that decides shapes says it better.
    if any(not value.type.tensor_type.HasField("shape") for value in inferred.graph.output):
        return
    try:
        onnx.checker.check_model(inferred)
    except onnx.checker.ValidationError as error:
        text = " ".join(str(error).split())
        raise ModelError(
            f"not a valid ONNX model: {first_line(ValueError(text))}; correct that and export it again"
        ) from None


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with large initializers as inputs, to infer shapes on."""
    slim = onnx.ModelProto()
    slim.ir_version = model.ir_version
    slim.opset_import.extend(model.opset_import)
    graph = slim.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.output.extend(model.graph.output)
    names = {tensor.name for tensor in model.graph.initializer}
    graph.input.extend(value for value in model.graph.input if value.name not in names)
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= _INFERENCE_ELEMENTS:
            graph.initializer.append(tensor)
        else:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return slim
