"""Control flow of an ONNX graph whose course is known before it runs: branches taken, loops unrolled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tvmcomp.errors import ModelError
from tvmcomp.frontend.onnx_graph import describe
from tvmcomp.frontend.signature import first_line

__all__ = ["CONTROL", "refuse_control", "resolve_control"]

CONTROL = ("If", "Loop", "Scan")
# Unrolled, more would take longer to compile than anyone waits.
_MAX_NODES = 20_000


def resolve_control(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Replace each If, Loop and Scan of the main graph whose course is known; True if there was one.

    If     ->  the branch its condition chooses
    Loop   ->  its body once per iteration, carried values handed on, scan outputs joined
    Scan   ->  the same over the slices of its scan inputs
    """
    graph = model.graph
    if not any(node.op_type in CONTROL for node in graph.node):
        return False
    writer = _Writer(model, shapes)
    for node in graph.node:
        unroll = {"If": _if, "Loop": _loop, "Scan": _scan}.get(node.op_type)
        if unroll is None or not unroll(writer, node):
            writer.add(node)
        if len(writer.nodes) > _MAX_NODES:
            raise ModelError(
                f"{describe(node)} unrolls to more than {_MAX_NODES} nodes; "
                "export the model with fewer iterations or without the loop"
            )
    if not writer.changed:
        return False
    del graph.node[:]
    graph.node.extend(writer.nodes)
    graph.initializer.extend(writer.tensors)
    return True


def refuse_control(graph: GraphProto) -> None:
    """What is left depends on data."""
    for node in graph.node:
        if node.op_type == "If":
            raise ModelError(
                f"{describe(node)} chooses its branch by data ({node.input[0]}); "
                "export the model with one branch fixed"
            )
        if node.op_type == "Loop":
            raise ModelError(
                f"{describe(node)} runs as often as data says ({', '.join(filter(None, node.input[:2]))}); "
                "export the model with a fixed number of iterations"
            )
        if node.op_type == "Scan":
            raise ModelError(
                f"{describe(node)} has a form or a length that is not known; "
                "export the model with static shapes and opset 9 or newer"
            )


@dataclass
class _Writer:
    """The graph as it is rewritten: nodes so far, new initializers, and what is known of values."""

    model: onnx.ModelProto
    shapes: Mapping[str, tuple[int, ...]]
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)
    changed: bool = False
    _count: int = 0
    _made: dict[str, NodeProto] = field(default_factory=dict)
    _known: dict[str, np.ndarray | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for tensor in self.model.graph.initializer:
            self._known[tensor.name] = numpy_helper.to_array(tensor)
        graph = self.model.graph
        self._taken = {name for node in _all_nodes(graph) for name in node.output}
        self._taken |= {value.name for value in (*graph.input, *graph.initializer)}

    @property
    def opset(self) -> int:
        """Of the default domain."""
        known = [e.version for e in self.model.opset_import if e.domain in ("", "ai.onnx")]
        return max(known, default=1)

    def add(self, node: NodeProto) -> None:
        """Append a node."""
        self.nodes.append(node)
        for name in node.output:
            self._made[name] = node

    def make(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Append a new node and give its output."""
        self.add(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, array: np.ndarray, hint: str) -> str:
        """A new initializer."""
        name = self.fresh(hint)
        self.tensors.append(numpy_helper.from_array(array, name))
        self._known[name] = array
        return name

    def fresh(self, hint: str) -> str:
        """A name nothing has."""
        while True:
            self._count += 1
            name = f"{hint}_{self._count}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def value(self, name: str) -> np.ndarray | None:
        """What a value is if it depends on no input; worked out node by node, each once."""
        if name not in self._known:
            self._known[name] = None
            node = self._made.get(name)
            if node is not None:
                self._evaluate(node)
        return self._known[name]

    def _evaluate(self, node: NodeProto) -> None:
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            return
        operands = {read: self.value(read) for read in node.input if read}
        if any(array is None for array in operands.values()):
            return
        inputs = [onnx.ValueInfoProto(name=name) for name in operands]
        results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([node], "node", inputs, results)
        part = helper.make_model(graph, opset_imports=self.model.opset_import)
        part.ir_version = self.model.ir_version
        try:
            with np.errstate(all="ignore"):
                values = ReferenceEvaluator(part).run(None, operands)
        except Exception as error:
            raise ModelError(f"{describe(node)} cannot be computed: {first_line(error)}") from error
        for result, array in zip(results, values, strict=True):
            self._known[result.name] = np.asarray(array)

    def inline(self, body: GraphProto, given: Mapping[str, str], prefix: str) -> list[str]:
        """Append the body's nodes under new names, `given` for its inputs; the names of its outputs."""
        self.changed = True
        names = dict(given)
        for tensor in body.initializer:
            copy = TensorProto.FromString(tensor.SerializeToString())
            copy.name = names[tensor.name] = self.fresh(f"{prefix}{tensor.name}")
            self.tensors.append(copy)
            self._known[copy.name] = numpy_helper.to_array(copy)
        for node in body.node:
            for name in filter(None, node.output):
                names[name] = self.fresh(f"{prefix}{name}")
        for node in body.node:
            copy = _renamed(node, names)
            copy.name = f"{prefix}{node.name or node.output[0]}"
            self.add(copy)
        return [names.get(value.name, value.name) for value in body.output]


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _all_nodes(inner)


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy that reads and writes under new names, in its subgraphs too."""
    copy = NodeProto.FromString(node.SerializeToString())
    for values in (copy.input, copy.output):
        for index, name in enumerate(values):
            values[index] = names.get(name, name)
    for attribute in copy.attribute:
        for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            own = {value.name for value in (*body.input, *body.initializer)}
            own |= {name for inner in body.node for name in inner.output}
            outer = {old: new for old, new in names.items() if old not in own}
            inners = [_renamed(inner, outer) for inner in body.node]
            del body.node[:]
            body.node.extend(inners)
            for value in body.output:
                value.name = outer.get(value.name, value.name)
    return copy


def _attributes(node: NodeProto) -> dict[str, object]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _if(writer: _Writer, node: NodeProto) -> bool:
    condition = writer.value(node.input[0])
    if condition is None:
        return False
    branch = _attributes(node)["then_branch" if condition.all() else "else_branch"]
    assert isinstance(branch, GraphProto)
    results = writer.inline(branch, {}, f"{node.name or node.output[0]}.")
    _name(writer, results, node)
    return True


def _name(writer: _Writer, results: list[str], node: NodeProto) -> None:
    for result, output in zip(results, node.output, strict=False):
        if output:
            writer.make("Identity", [result], output)


def _loop(writer: _Writer, node: NodeProto) -> bool:
    trips, condition = (writer.value(name) if name else None for name in (*node.input, "", "")[:2])
    named = [bool(name) for name in (*node.input, "", "")[:2]]
    if (named[0] and trips is None) or (named[1] and condition is None) or not any(named):
        return False
    limit = _MAX_NODES if trips is None else int(trips.reshape(()))
    body = _attributes(node)["body"]
    assert isinstance(body, GraphProto)
    carried = list(node.input[2:])
    kept: list[list[str]] = []
    going = condition is None or bool(condition.all())
    ran = 0
    state = (list(writer.nodes), list(writer.tensors), writer.changed)
    while going and ran < limit:
        prefix = f"{node.name or node.output[0]}.{ran}."
        given = [
            writer.constant(np.array(ran, np.int64), f"{prefix}iteration"),
            writer.constant(np.array(True), f"{prefix}condition"),
            *carried,
        ]
        names = {value.name: name for value, name in zip(body.input, given, strict=True)}
        results = writer.inline(body, names, prefix)
        verdict = writer.value(results[0])
        if verdict is None:
            # The condition turned out to depend on data: nothing of this happened.
            writer.nodes, writer.tensors, writer.changed = state
            return False
        going = bool(verdict.all())
        carried = results[1 : 1 + len(carried)]
        kept.append(results[1 + len(carried) :])
        ran += 1
        if len(writer.nodes) > _MAX_NODES:
            return True
    joined = [_join(writer, parts, node, 0) for parts in zip(*kept, strict=True)]
    if not kept and len(node.output) > len(carried):
        raise ModelError(f"{describe(node)} never runs; export the model without it")
    writer.changed = True
    _name(writer, [*carried, *joined], node)
    return True


def _join(writer: _Writer, parts: tuple[str, ...], node: NodeProto, axis: int) -> str:
    """The values of all iterations stacked along a new axis."""
    if writer.opset >= 13:
        axes, attributes = [writer.constant(np.array([axis], np.int64), "axes")], {}
    else:
        axes, attributes = [], {"axes": [axis]}
    slices = [
        writer.make("Unsqueeze", [part, *axes], writer.fresh(f"{part}.slice"), **attributes)
        for part in parts
    ]
    return writer.make("Concat", slices, writer.fresh(f"{node.output[0]}.joined"), axis=axis)


def _scan(writer: _Writer, node: NodeProto) -> bool:
    attributes = _attributes(node)
    body, count = attributes["body"], attributes["num_scan_inputs"]
    assert isinstance(body, GraphProto)
    assert isinstance(count, int)
    states = len(node.input) - count
    if len(body.input) != len(node.input):
        return False  # opset 8, with a batch axis and lengths
    scanned = list(node.input[states:])
    axes, reverse = (
        list(attributes.get(key) or [0] * count)  # type: ignore[call-overload]
        for key in ("scan_input_axes", "scan_input_directions")
    )
    if any(name not in writer.shapes for name in scanned):
        return False
    ranks = [len(writer.shapes[name]) for name in scanned]
    axes = [axis % rank for axis, rank in zip(axes, ranks, strict=True)]
    length = writer.shapes[scanned[0]][axes[0]]
    carried = list(node.input[:states])
    kept: list[list[str]] = []
    for step in range(length):
        prefix = f"{node.name or node.output[0]}.{step}."
        given = list(carried)
        for name, axis, backwards in zip(scanned, axes, reverse, strict=True):
            index = np.array(length - 1 - step if backwards else step, np.int64)
            at = writer.constant(index, f"{prefix}step")
            given.append(
                writer.make("Gather", [name, at], writer.fresh(f"{prefix}{name}"), axis=axis)
            )
        names = {value.name: name for value, name in zip(body.input, given, strict=True)}
        results = writer.inline(body, names, prefix)
        carried = results[:states]
        kept.append(results[states:])
        if len(writer.nodes) > _MAX_NODES:
            return True
    outputs = len(body.output) - states
    out_axes, out_reverse = (
        list(attributes.get(key) or [0] * outputs)  # type: ignore[call-overload]
        for key in ("scan_output_axes", "scan_output_directions")
    )
    joined = []
    for parts, axis, backwards in zip(zip(*kept, strict=True), out_axes, out_reverse, strict=True):
        joined.append(_join(writer, parts[::-1] if backwards else parts, node, axis))
    _name(writer, [*carried, *joined], node)
    return True
