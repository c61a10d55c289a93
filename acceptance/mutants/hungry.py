"""Models that ask for more memory, time or nesting than there is."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper

from acceptance.mutants.sound import build, node, sound, weight

__all__ = ["HUNGRY"]

_HUGE = (1 << 20, 1 << 31, 1 << 35, 1 << 62, (1 << 63) - 1)


def _reshape(rng: Random) -> onnx.ModelProto:
    sizes = rng.choice(
        [
            [1 << 62, 4],
            [-1, -1],
            [-1, 0],
            [0, 0, 0],
            [1 << 31, 1 << 31, 4],
            [-2, 6],
            [5, -1],
            [1 << 62, -1],
        ]
    )
    reshape = node("Reshape", ["x", "sizes"], ["y"], "the_reshape", allowzero=rng.choice([0, 1]))
    return build([reshape], {"x": (2, 6)}, {"sizes": np.array(sizes)})


def _constants(rng: Random) -> onnx.ModelProto:
    many = [rng.choice(_HUGE) for _ in range(rng.choice([1, 2, 3]))]
    kind = rng.choice(["ConstantOfShape", "Expand", "Tile"])
    weights = {"sizes": np.array(many), "one": np.ones([1] * len(many), np.float32)}
    if kind == "ConstantOfShape":
        maker = node(kind, ["sizes"], ["c"], "the_maker")
    else:
        source = rng.choice(["one", "x"])
        maker = node(kind, [source, "sizes"], ["c"], "the_maker")
    add = node("Add", ["x", "c"], ["y"], "the_add")
    return build([maker, add], {"x": [1] * len(many)}, weights)


def _steps(rng: Random) -> onnx.ModelProto:
    start, limit, delta = rng.choice(
        [
            (0, 1 << 40, 1),
            (0, (1 << 63) - 1, 1),
            (0, 10, 0),
            (0, -10, 1),
            (-(1 << 63), (1 << 63) - 1, 1),
            (0, 1 << 31, 3),
        ]
    )
    weights = {"a": np.array(start), "b": np.array(limit), "d": np.array(delta)}
    nodes = [
        node("Range", ["a", "b", "d"], ["r"], "the_range"),
        node("Cast", ["r"], ["f"], "the_cast", to=TensorProto.FLOAT),
        node("Add", ["x", "f"], ["y"], "the_add"),
    ]
    return build(nodes, {"x": (1,)}, weights)


def _pad(rng: Random) -> onnx.ModelProto:
    pads = [0, rng.choice([*_HUGE, -1, -9, -(1 << 40)]), 0, rng.choice([0, 1, -5, 1 << 40])]
    mode = rng.choice(["constant", "reflect", "edge", "wrap", "sideways"])
    pad = node("Pad", ["x", "pads"], ["y"], "the_pad", mode=mode)
    return build([pad], {"x": (2, 6)}, {"pads": np.array(pads)})


def _resize(rng: Random) -> onnx.ModelProto:
    odd = rng.choice([0.0, -2.0, np.nan, np.inf, 1e30, 1e6, 1e-30])
    scales = np.array([1, 1, odd, rng.choice([1.0, 2.0, odd])], np.float32)
    if rng.random() < 0.3:
        sizes = np.array([1, 1, rng.choice([0, -1, 1 << 40, 1 << 62]), 8])
        resize = node("Resize", ["x", "", "", "sizes"], ["y"], "the_resize", mode="linear")
        return build([resize], {"x": (1, 1, 4, 4)}, {"sizes": sizes})
    mode = rng.choice(["nearest", "linear", "cubic", "fancy"])
    resize = node("Resize", ["x", "", "scales"], ["y"], "the_resize", mode=mode)
    return build([resize], {"x": (1, 1, 4, 4)}, {"scales": scales})


def _value(name: str, kind: int, shape: list[int] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _loop(rng: Random) -> onnx.ModelProto:
    body = helper.make_graph(
        [node("Identity", ["go"], ["still"]), node("Add", ["v", "v"], ["w"])],
        "body",
        [_value("i", TensorProto.INT64, []), _value("go", TensorProto.BOOL, []), _value("v", TensorProto.FLOAT, [2])],
        [_value("still", TensorProto.BOOL, []), _value("w", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    count = rng.choice(["", "count"])
    loop = node("Loop", [count, "yes", "x"], ["y"], "the_loop", body=body)
    if rng.random() < 0.2:
        del loop.attribute[:]
    weights = {"yes": np.array(True), "count": np.array(rng.choice([1 << 40, (1 << 63) - 1, -1]))}
    return build([loop], {"x": (2,)}, weights)


def _branch(output: list[int], *, capture: str = "x", op: str = "Relu") -> onnx.GraphProto:
    result = [_value("t", TensorProto.FLOAT, output)]
    return helper.make_graph([node(op, [capture], ["t"], "inner")], "branch", [], result)


def _if(rng: Random) -> onnx.ModelProto:
    shapes = rng.choice([([2], [2, 1]), ([2], [3]), ([2], [])])
    other = rng.choice(["x", "k"])
    branches = {
        "then_branch": _branch(shapes[0]), "else_branch": _branch(shapes[1], capture=other, op="Exp")
    }  # fmt: skip
    if rng.random() < 0.3:
        branches.popitem()
    condition = rng.choice(["yes", "flag", "x"])
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Cast", ["sum"], ["flag"], to=TensorProto.BOOL),
        node("If", [condition], ["y"], "the_if", **branches),
    ]
    return build(nodes, {"x": (2,)}, {"yes": np.array(True), "k": weight(0, 3, 1)})


def _captures(rng: Random) -> onnx.ModelProto:
    capture = rng.choice(["nowhere", "y", "later", "t"])
    branches = {"then_branch": _branch([2], capture=capture), "else_branch": _branch([2])}
    nodes = [
        node("If", ["yes"], ["m"], "the_if", **branches),
        node("Relu", ["m"], ["later"], "the_relu"),
        node("Exp", ["later"], ["y"], "the_exp"),
    ]
    return build(nodes, {"x": (2,)}, {"yes": np.array(rng.random() < 0.5)})


def _nesting(rng: Random) -> onnx.ModelProto:
    branch = _branch([2])
    for depth in range(rng.choice([3, 10, 20, 28])):
        inner = node(
            "If", ["yes"], [f"t{depth}"], "inner", then_branch=branch, else_branch=_branch([2])
        )
        result = _value(f"t{depth}", TensorProto.FLOAT, [2])
        branch = helper.make_graph([inner], "branch", [], [result])
    outer = node("If", ["yes"], ["y"], "the_if", then_branch=branch, else_branch=branch)
    return build([outer], {"x": (2,)}, {"yes": np.array(True)})


def _functions(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    what = rng.choice(["itself", "each other", "absent", "twice", "doubling", "operands"])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]

    def function(name: str, *calls: str) -> onnx.FunctionProto:
        nodes, last = [], "a"
        for number, call in enumerate(calls):
            domain = "" if call == "Relu" else "own"
            nodes.append(node(call, [last], [f"b{number}"], domain=domain))
            last = f"b{number}"
        return helper.make_function("own", name, ["a"], [last], nodes, opsets)

    functions = {
        "itself": [function("F", "F")],
        "each other": [function("F", "G"), function("G", "F")],
        "absent": [function("F", "H")],
        "twice": [function("F", "Relu"), function("F", "Relu")],
        "doubling": [function("F", *["F1"] * 2)]
        + [function(f"F{n}", *[f"F{n + 1}"] * 2) for n in range(1, 24)]
        + [function("F24", "Relu")],
        "operands": [function("F", "Relu")],
    }[what]
    model.functions.extend(functions)
    model.opset_import.append(helper.make_opsetid("own", 1))
    last = model.graph.node[-1]
    last.output[0] = "before"
    operands = ["before", "before"] if what == "operands" else ["before"]
    model.graph.node.append(node("F", operands, ["y"], "the_call", domain="own"))
    return model


def _arithmetic(rng: Random) -> onnx.ModelProto:
    """Shapes computed from shapes, past the end of int64 and below zero."""
    op, number = rng.choice(
        [("Mul", 1 << 62), ("Add", (1 << 63) - 1), ("Sub", 100), ("Div", 0), ("Mod", 0)]
    )
    nodes = [
        node("Shape", ["x"], ["s"], "the_shape"),
        node(op, ["s", "k"], ["t"], "the_arithmetic"),
        node(rng.choice(["Expand", "Reshape", "Tile"]), ["x", "t"], ["y"], "the_user"),
    ]
    return build(nodes, {"x": (2, 6)}, {"k": np.array(number)})


def _long(rng: Random) -> onnx.ModelProto:
    """Many nodes, or a node of very many operands."""
    if rng.random() < 0.5:
        count = rng.choice([100, 300])
        nodes = [
            node("Relu", ["x" if n == 0 else f"v{n}"], [f"v{n + 1}"], f"relu{n}")
            for n in range(count)
        ]
        return build([*nodes, node("Exp", [f"v{count}"], ["y"], "the_exp")], {"x": (2,)}, {})
    op = rng.choice(["Sum", "Max", "Concat", "Mean"])
    attributes = {"axis": 0} if op == "Concat" else {}
    many = node(op, ["x"] * rng.choice([50, 200]), ["y"], "the_node", **attributes)
    return build([many], {"x": (2,)}, {})


HUNGRY: dict[str, Callable[[Random], onnx.ModelProto]] = {
    "reshape to what cannot be": _reshape,
    "constant of many gigabytes": _constants,
    "endless range": _steps,
    "enormous or negative pad": _pad,
    "resize by zero, nothing or for ever": _resize,
    "endless loop": _loop,
    "branches that differ": _if,
    "subgraph that captures nothing": _captures,
    "deep nesting": _nesting,
    "recursive functions": _functions,
    "shape arithmetic that overflows": _arithmetic,
    "very long or very wide graph": _long,
}
