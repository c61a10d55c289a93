"""Damage to what a graph says: attributes, shapes, types, connections, names."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from acceptance.mutants.sound import build, initializer, node, sound, weight

__all__ = ["GRAPHS"]

_ODD = (0, -1, -2, 3, 7, 1 << 20, 1 << 40, (1 << 63) - 1, -(1 << 63))


def _node(model: onnx.ModelProto, rng: Random, *ops: str) -> onnx.NodeProto:
    return rng.choice([n for n in model.graph.node if not ops or n.op_type in ops])


def _set(target: onnx.NodeProto, name: str, value: object) -> None:
    kept = [a for a in target.attribute if a.name != name]
    copies = [AttributeProto.FromString(a.SerializeToString()) for a in kept]
    del target.attribute[:]
    target.attribute.extend([*copies, helper.make_attribute(name, value)])


def _attribute_type(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    target = rng.choice([n for n in model.graph.node if n.attribute])
    name = rng.choice(target.attribute).name
    _set(target, name, rng.choice([1.5, "text", [1.5, 2.5], ["a", "b"], [1, 2, 3], 7]))
    return model


def _attribute_unknown(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    _set(
        _node(model, rng),
        rng.choice(["slope", "kernel", "axes_", "", "Axis"]),
        rng.choice([1, 0.5]),
    )
    return model


def _attribute_missing(rng: Random) -> onnx.ModelProto:
    x, nodes = {"x": (1, 3, 8, 8)}, {
        "Concat": node("Concat", ["x", "x"], ["y"], "the_node"),
        "MaxPool": node("MaxPool", ["x"], ["y"], "the_node"),
        "AveragePool": node("AveragePool", ["x"], ["y"], "the_node"),
        "Cast": node("Cast", ["x"], ["y"], "the_node"),
        "DepthToSpace": node("DepthToSpace", ["x"], ["y"], "the_node"),
        "LpPool": node("LpPool", ["x"], ["y"], "the_node"),
        "Einsum": node("Einsum", ["x"], ["y"], "the_node"),
        "SpaceToDepth": node("SpaceToDepth", ["x"], ["y"], "the_node"),
    }  # fmt: skip
    return build([nodes[rng.choice(sorted(nodes))]], x, {})


def _conv_numbers(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 0, 2)
    target = _node(model, rng, "Conv", "MaxPool")
    name = rng.choice(["strides", "dilations", "kernel_shape"])
    value = [rng.choice(_ODD) for _ in range(rng.choice([1, 2, 2, 2, 3]))]
    _set(target, name, value)
    return model


def _conv_group(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 0, 2)
    _set(_node(model, rng, "Conv"), "group", rng.choice([*_ODD, 2, 5]))
    return model


def _pads(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 0, 2)
    count = rng.choice([2, 4, 4, 4, 5])
    _set(
        _node(model, rng, "Conv", "MaxPool"), "pads", [rng.choice([*_ODD, 1]) for _ in range(count)]
    )
    return model


def _axis(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 0, 1)
    target = rng.choice([n for n in model.graph.node if any(a.name == "axis" for a in n.attribute)])
    _set(target, "axis", rng.choice([3, 4, -4, -9, 1 << 40, -(1 << 63)]))
    return model


def _perm(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 1)
    _set(
        _node(model, rng, "Transpose"),
        "perm",
        [rng.choice([0, 1, 2, 3, -1]) for _ in range(rng.choice([2, 3, 4]))],
    )
    return model


def _rank(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    tensor = rng.choice([t for t in model.graph.initializer if len(t.dims)])
    dims = list(tensor.dims)
    change = rng.choice(["flat", "front", "swap", "scalar"])
    size = int(np.prod(dims))
    new = {"flat": [size], "front": [1, *dims], "swap": dims[::-1], "scalar": [1] * 5 + [size]}[
        change
    ]
    del tensor.dims[:]
    tensor.dims.extend(new)
    return model


def _dims(rng: Random, values: tuple[int, ...]) -> onnx.ModelProto:
    model = sound(rng)
    if rng.random() < 0.5:
        tensor = rng.choice([t for t in model.graph.initializer if len(t.dims)])
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(values)
    else:
        dims = model.graph.input[0].type.tensor_type.shape.dim
        rng.choice(dims).dim_value = rng.choice(values)
    return model


def _element_type(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    kind = rng.choice([np.float64, np.int32, np.float16, np.uint8, np.bool_, np.int64])
    if rng.random() < 0.3:
        model.graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(
            np.dtype(kind)
        )
        return model
    tensor = rng.choice(model.graph.initializer)
    array = np.nan_to_num(numpy_helper.to_array(tensor)).astype(kind)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def _dangling(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    target = _node(model, rng)
    target.input[rng.randrange(len(target.input))] = rng.choice(
        ["nowhere", "", "conv.weights", "Y"]
    )
    return model


def _operand_count(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    target = _node(model, rng)
    if rng.random() < 0.5 and len(target.input) > 1:
        target.input.pop()
    else:
        target.input.extend([target.input[0]] * rng.choice([1, 3, 9]))
    return model


def _cycle(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    nodes = model.graph.node
    first = rng.randrange(len(nodes))
    last = rng.randrange(first, len(nodes))
    nodes[first].input[0] = nodes[last].output[0]
    return model


def _duplicates(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    graph = model.graph
    what = rng.choice(["node", "value", "tensor", "input", "output"])
    if what == "node":
        graph.node[-1].name = graph.node[0].name
    elif what == "value":
        graph.node.add().CopyFrom(graph.node[rng.randrange(len(graph.node))])
    elif what == "tensor":
        graph.initializer.add().CopyFrom(rng.choice(graph.initializer))
    elif what == "input":
        graph.input.add().CopyFrom(graph.input[0])
    else:
        graph.output.add().CopyFrom(graph.output[0])
    return model


def _missing_tensor(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    del model.graph.initializer[rng.randrange(len(model.graph.initializer))]
    return model


def _opset(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    what = rng.choice(["old", "new", "none", "twice", "other", "negative", "ir"])
    if what in ("old", "new", "negative"):
        model.opset_import[0].version = {"old": rng.choice([1, 5, 6]), "new": 999, "negative": -1}[
            what
        ]
    elif what == "none":
        del model.opset_import[:]
    elif what == "twice":
        model.opset_import.extend([helper.make_opsetid("", 11), helper.make_opsetid("ai.onnx", 13)])
    elif what == "other":
        model.opset_import[0].domain = "acme"
    else:
        model.ir_version = rng.choice([0, 1, 2, 999, -1])
    return model


def _unknown(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    target = _node(model, rng)
    if rng.random() < 0.5:
        target.domain = rng.choice(["acme", "com.microsoft", "ai.onnx.ml", "\x1b[31m"])
    else:
        target.op_type = rng.choice(["", "Frobnicate", "conv", "Conv\n", "__class__", "Loop"])
    return model


def _names(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    name = rng.choice(
        ["a\nb", "\x1b[2J\x1b[31mred", "n" * 100_000, "../../etc", "a\0b", "%s%n", "\u202ex"]
    )
    old = rng.choice(
        [model.graph.input[0].name, model.graph.output[0].name, model.graph.node[0].output[0]]
    )
    for value in (*model.graph.input, *model.graph.output):
        value.name = name if value.name == old else value.name
    for target in model.graph.node:
        target.input[:] = [name if x == old else x for x in target.input]
        target.output[:] = [name if x == old else x for x in target.output]
    if rng.random() < 0.5:
        model.graph.node[0].name = name
        model.graph.node[0].op_type = rng.choice(["Conv", "Frobnicate"])
    return model


def _empty(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    graph = model.graph
    for part in rng.sample(["node", "input", "output", "initializer"], rng.choice([1, 2, 4])):
        graph.ClearField(part)
    if rng.random() < 0.2:
        model.ClearField("graph")
    return model


def _odd_interface(rng: Random) -> onnx.ModelProto:
    """Sound but unusual: these mostly compile."""
    model = sound(rng)
    graph = model.graph
    what = rng.choice(["initializer input", "unused input", "input as output", "weight as output"])
    if what == "initializer input":
        for tensor in graph.initializer:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    elif what == "unused input":
        graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, [2]))
    else:
        name = graph.input[0].name if what == "input as output" else graph.initializer[0].name
        kind = TensorProto.FLOAT if what == "input as output" else graph.initializer[0].data_type
        graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return model


def _declared_output(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    shape = rng.choice([[1], [7, 7], [0], [-1], [1 << 40], [2, 3, 4, 5]])
    kind = rng.choice([TensorProto.FLOAT, TensorProto.INT8, TensorProto.STRING])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", kind, shape))
    return model


def _window_too_large(rng: Random) -> onnx.ModelProto:
    size = rng.choice([1, 2, 3])
    kernel = rng.choice([size + 1, size + 4, 64])
    dilation = rng.choice([1, 5])
    conv = node("Conv", ["x", "w"], ["y"], "the_conv", dilations=[dilation, dilation])
    pool = node(
        rng.choice(["MaxPool", "AveragePool"]),
        ["x"],
        ["y"],
        "the_pool",
        kernel_shape=[kernel, kernel],
    )
    weights = {"w": weight(0, 2, 3, kernel, kernel)} if rng.random() < 0.5 else {}
    return build([conv if weights else pool], {"x": (1, 3, size, size)}, weights)


def _sums(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 1)
    if rng.random() < 0.6:
        parts = rng.choice([[1, 1], [2, 3], [0, 4], [-1, 5], [4], [1, 1, 2], [1 << 62, 1 << 62]])
        initializer(model, "parts").CopyFrom(numpy_helper.from_array(np.array(parts), "parts"))
    else:
        other = rng.choice(["x", "first.bias", "rows", "m"])
        _node(model, rng, "Concat").input[0] = other
    return model


def _norm_lengths(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 0)
    name = rng.choice(["scale", "shift", "mean", "var"])
    array = rng.choice(
        [weight(0, 3), weight(0, 5), weight(0, 4, 1), weight(0), np.zeros(0, np.float32)]
    )
    if name == "var" and rng.random() < 0.5:
        array = np.full(4, rng.choice([-1.0, 0.0, -1e-5]), np.float32)
    initializer(model, name).CopyFrom(numpy_helper.from_array(np.asarray(array), name))
    _set(_node(model, rng, "BatchNormalization"), "epsilon", rng.choice([1e-5, 0.0, -1.0]))
    return model


def _gather_rows(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 1)
    rows = [rng.choice([*_ODD, 4, -5]) for _ in range(3)]
    initializer(model, "rows").CopyFrom(numpy_helper.from_array(np.array(rows), "rows"))
    return model


GRAPHS = {
    "attribute of another type": _attribute_type,
    "unknown attribute": _attribute_unknown,
    "missing attribute": _attribute_missing,
    "stride, dilation or kernel size that cannot be": _conv_numbers,
    "groups that do not divide": _conv_group,
    "pads negative, huge or too few": _pads,
    "axis outside": _axis,
    "permutation that is none": _perm,
    "rank of a weight": _rank,
    "negative dimension": lambda rng: _dims(rng, (-1, -4, -(1 << 63))),
    "zero dimension": lambda rng: _dims(rng, (0,)),
    "huge dimension": lambda rng: _dims(rng, (1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1)),
    "element type": _element_type,
    "operand nobody makes": _dangling,
    "number of operands": _operand_count,
    "cycle": _cycle,
    "duplicates": _duplicates,
    "missing weight": _missing_tensor,
    "opset or IR version": _opset,
    "unknown operator or domain": _unknown,
    "names with control characters": _names,
    "empty parts": _empty,
    "odd inputs and outputs": _odd_interface,
    "declared output": _declared_output,
    "window larger than its input": _window_too_large,
    "parts that do not add up": _sums,
    "normalisation parameters": _norm_lengths,
    "constant indices": _gather_rows,
}
