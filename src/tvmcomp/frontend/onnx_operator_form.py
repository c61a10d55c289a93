"""Operators that compute on codes, written as what they mean: dequantize, the float operator, quantize.

QLinearConv(x, w)   ->  QuantizeLinear(Conv(DequantizeLinear(x), DequantizeLinear(w), DequantizeLinear(b)))
QLinearAdd(a, b)    ->  QuantizeLinear(Add(DequantizeLinear(a), DequantizeLinear(b)))       likewise the others
Mul(Cast(MatMulInteger(q, w)), s * ws)  ->  MatMul(DequantizeLinear(q), DequantizeLinear(w))
                                            q, s: from DynamicQuantizeLinear; likewise ConvInteger
MaxPool(x)          ->  QuantizeLinear(MaxPool(DequantizeLinear(x)))    x: codes; likewise what only moves them

One lowering then serves both forms. What an operator rounds and where is kept: a pair stands where it had one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tvmcomp.errors import ModelError
from tvmcomp.frontend.onnx_dynamic import DynamicSum, dynamic_sums
from tvmcomp.frontend.onnx_graph import describe

__all__ = ["OPERATOR_FORM", "expand_operator_form"]

Attributes: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class _Codes:
    """How a tensor of codes is read: names of its scale and zero point, "" for none."""

    scale: str
    zero_point: str


@dataclass(eq=False)
class _Expansion:
    """Collects the nodes that replace a graph's; `known` says how tensors of codes are read."""

    taken: set[str]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    known: dict[str, _Codes] = field(default_factory=dict)

    def name(self, hint: str) -> str:
        name, count = hint, 0
        while name in self.taken:
            count += 1
            name = f"{hint}_{count}"
        self.taken.add(name)
        return name

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        like: NodeProto,
        *,
        output: str = "",
        attributes: Mapping[str, Any] | None = None,
        main: bool = True,
    ) -> str:
        """A node that stands for a part of `like`, the `main` one under its name; returns its output's name."""
        output = output or self.name(f"{like.output[0]}/{op}")
        # The operator itself comes last of its parts.
        name = like.name if main else ""
        made = helper.make_node(op, list(inputs), [output], name)
        made.attribute.extend(
            helper.make_attribute(key, value) for key, value in (attributes or {}).items()
        )
        self.nodes.append(made)
        return output

    def constant(self, hint: str, array: np.ndarray) -> str:
        name = self.name(hint)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def real(self, codes: Sequence[str], like: NodeProto, axis: int = 0) -> str:
        """dequantize(codes, scale, zero point)."""
        operands = [name for name in codes if name]
        axes = {"axis": axis}
        return self.emit("DequantizeLinear", operands, like, attributes=axes, main=False)

    def codes(self, real: str, scale: str, zero_point: str, like: NodeProto) -> None:
        """The output of `like` is `real` quantized."""
        operands = [name for name in (real, scale, zero_point) if name]
        self.emit("QuantizeLinear", operands, like, output=like.output[0], main=False)
        self.known[like.output[0]] = _Codes(scale, zero_point)


Rule: TypeAlias = Callable[[_Expansion, NodeProto, list[str], Attributes], None]


def expand_operator_form(graph: onnx.GraphProto) -> None:
    """Replace every operator on codes; nodes must be in topological order.

    Raises ModelError for a form that has no such meaning (channels last).
    """
    reads = {name for node in graph.node for name in node.input}
    names = {name for node in graph.node for name in node.output}
    names |= {value.name for value in (*graph.input, *graph.initializer)}
    expansion = _Expansion(reads | names)
    expansion.known |= dict(_inputs_as_codes(graph))
    sums = dynamic_sums(graph)
    dropped = {name for found in sums.values() for name in found.dropped}
    for node in graph.node:
        rule = _rule(node)
        if node.output[0] in dropped:
            continue
        if node.output[0] in sums:
            _dynamic(expansion, node, sums[node.output[0]])
        elif rule is not None:
            rule(expansion, node, _padded(node.input, 14), _attributes(node))
        elif not _moved(expansion, node):
            kept = NodeProto.FromString(node.SerializeToString())
            if node.op_type == "QuantizeLinear":
                scale, zero_point = _padded(node.input, 3)[1:]
                expansion.known[node.output[0]] = _Codes(scale, zero_point)
            expansion.nodes.append(kept)
    del graph.node[:]
    graph.node.extend(expansion.nodes)
    graph.initializer.extend(expansion.constants)


def _inputs_as_codes(graph: onnx.GraphProto) -> Iterator[tuple[str, _Codes]]:
    """Graph inputs that something dequantizes, as it does first."""
    inputs = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    for node in reversed(graph.node):
        for name, scale, zero_point in _readings(node):
            if name in inputs:
                yield name, _Codes(scale, zero_point)


def _readings(node: NodeProto) -> Iterator[tuple[str, str, str]]:
    if node.op_type == "DequantizeLinear" or node.op_type.startswith("QLinear"):
        first = 2 if node.op_type == "QLinearConcat" else 0
        operands = _padded(node.input, first + 3)
        yield operands[first], operands[first + 1], operands[first + 2]


def _rule(node: NodeProto) -> Rule | None:
    if node.domain in ("", "ai.onnx"):
        return _STANDARD.get(node.op_type)
    return _CONTRIB.get(node.op_type) if node.domain == "com.microsoft" else None


def _padded(names: Sequence[str], count: int) -> list[str]:
    return [*names, *[""] * (count - len(names))]


def _attributes(node: NodeProto) -> Attributes:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if attributes.pop("channels_last", 0):
        raise ModelError(
            f"{describe(node)} keeps its channels last; export the model with channels first (NCHW)"
        )
    return attributes


def _conv(made: _Expansion, node: NodeProto, names: list[str], attributes: Attributes) -> None:
    x, w, bias = names[:3], names[3:6], names[8]
    operands = [made.real(x, node), made.real(w, node)]
    if bias:
        operands.append(_bias(made, node, bias, x[1], w[1]))
    made.codes(made.emit("Conv", operands, node, attributes=attributes), names[6], names[7], node)


def _bias(made: _Expansion, node: NodeProto, bias: str, a: str, b: str, alpha: float = 1.0) -> str:
    """An int32 bias, whose scale is the product of the operands' scales."""
    scale = made.emit("Mul", [a, b], node, main=False)
    if alpha != 1.0:
        factor = made.constant(f"{node.output[0]}/alpha", np.array(alpha, np.float32))
        scale = made.emit("Mul", [scale, factor], node, main=False)
    return made.real([bias, scale], node)


def _matmul(made: _Expansion, node: NodeProto, names: list[str], _: Attributes) -> None:
    # Scales of b are per column, of a per row, which no integer sum over them has.
    operands = [made.real(names[:3], node, -2), made.real(names[3:6], node, -1)]
    made.codes(made.emit("MatMul", operands, node), names[6], names[7], node)


def _gemm(made: _Expansion, node: NodeProto, names: list[str], attributes: Attributes) -> None:
    a, b, bias = names[:3], names[3:6], names[6]
    columns = 0 if attributes.get("transB") else 1
    operands = [made.real(a, node), made.real(b, node, columns)]
    if bias:
        operands.append(_bias(made, node, bias, a[1], b[1], float(attributes.get("alpha", 1.0))))
    if names[7]:
        real = made.emit("Gemm", operands, node, attributes=attributes)
        made.codes(real, names[7], names[8], node)
    else:
        made.emit("Gemm", operands, node, output=node.output[0], attributes=attributes)


def _binary(op: str) -> Rule:
    def rule(made: _Expansion, node: NodeProto, names: list[str], _: Attributes) -> None:
        operands = [made.real(names[:3], node), made.real(names[3:6], node)]
        made.codes(made.emit(op, operands, node), names[6], names[7], node)

    return rule


def _unary(op: str, *dropped: str) -> Rule:
    def rule(made: _Expansion, node: NodeProto, names: list[str], attributes: Attributes) -> None:
        kept = {key: value for key, value in attributes.items() if key not in dropped}
        real = made.emit(op, [made.real(names[:3], node)], node, attributes=kept)
        made.codes(real, names[3], names[4], node)

    return rule


def _concat(made: _Expansion, node: NodeProto, names: list[str], attributes: Attributes) -> None:
    count = len(node.input)
    operands = [made.real(node.input[i : i + 3], node) for i in range(2, count, 3)]
    made.codes(made.emit("Concat", operands, node, attributes=attributes), names[0], names[1], node)


def _where(made: _Expansion, node: NodeProto, names: list[str], _: Attributes) -> None:
    operands = [names[0], made.real(names[1:4], node), made.real(names[4:7], node)]
    made.codes(made.emit("Where", operands, node), names[7], names[8], node)


def _to_float(made: _Expansion, node: NodeProto, names: list[str], _: Attributes) -> None:
    """MatMulIntegerToFloat: codes in, float32 out."""
    a, b = [names[0], names[2], names[4]], [names[1], names[3], names[5]]
    _float_product(made, node, [made.real(a, node, -2), made.real(b, node, -1)], names[6])


def _dynamic_matmul(made: _Expansion, node: NodeProto, names: list[str], _: Attributes) -> None:
    """DynamicQuantizeMatMul: the first operand is quantized here."""
    codes = [made.name(f"{node.output[0]}/{part}") for part in ("codes", "scale", "zero_point")]
    made.nodes.append(helper.make_node("DynamicQuantizeLinear", [names[0]], codes))
    operands = [made.real(codes, node), made.real(names[1:4], node, -1)]
    _float_product(made, node, operands, names[4])


def _float_product(made: _Expansion, node: NodeProto, operands: list[str], bias: str) -> None:
    if not bias:
        made.emit("MatMul", operands, node, output=node.output[0])
        return
    product = made.emit("MatMul", operands, node, main=False)
    made.emit("Add", [product, bias], node, output=node.output[0])


def _dynamic(made: _Expansion, node: NodeProto, found: DynamicSum) -> None:
    """MatMulInteger or ConvInteger whose result is scaled to float32."""
    weight = [node.input[1], found.weight_scale, *node.input[3:4]]
    matmul = node.op_type == "MatMulInteger"
    operands = [made.real(found.codes, node), made.real(weight, node, -1 if matmul else 0)]
    op = "MatMul" if matmul else "Conv"
    made.emit(op, operands, node, output=found.result, attributes=_attributes(node))


def _pair(made: _Expansion, node: NodeProto, _: list[str], attributes: Attributes) -> None:
    """ONNX Runtime's own QuantizeLinear and DequantizeLinear mean what the standard's do."""
    output = node.output[0]
    made.emit(node.op_type, list(node.input), node, output=output, attributes=attributes)
    if node.op_type == "QuantizeLinear":
        scale, zero_point = _padded(node.input, 3)[1:]
        made.known[output] = _Codes(scale, zero_point)


def _moved(made: _Expansion, node: NodeProto) -> bool:
    """Rewrite an operator that moves or compares codes; False if `node` is none."""
    if node.op_type not in _MOVES or node.domain not in ("", "ai.onnx"):
        return False
    read = made.known.get(node.input[0]) if node.input else None
    if read is None:
        return False
    operands = list(node.input)
    operands[0] = made.real([node.input[0], read.scale, read.zero_point], node)
    if node.op_type == "Pad":
        operands = _pad_operands(made, node, operands, read)
    outputs = [made.name(f"{output}/real") for output in node.output]
    moved = NodeProto.FromString(node.SerializeToString())
    del moved.input[:]
    moved.input.extend(operands)
    del moved.output[:]
    moved.output.extend(outputs)
    made.nodes.append(moved)
    for output, real in zip(node.output, outputs, strict=True):
        inputs = [name for name in (real, read.scale, read.zero_point) if name]
        made.nodes.append(helper.make_node("QuantizeLinear", inputs, [output]))
        made.known[output] = read
    return True


def _pad_operands(
    made: _Expansion, node: NodeProto, operands: list[str], read: _Codes
) -> list[str]:
    """The border is a code, too; without one it is code 0."""
    mode = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
    if mode != b"constant":
        return operands
    operands = _padded(operands, 3)
    if operands[2] or read.zero_point:
        # Plain arithmetic, which folds: a border must be known, and a dequantize would stay.
        operands[2] = _border(made, node, operands[2], read)
    return operands


def _border(made: _Expansion, node: NodeProto, code: str, read: _Codes) -> str:
    """(code - zero point) * scale; without a name either is 0."""

    def real(name: str) -> str:
        to = {"to": TensorProto.FLOAT}
        return made.emit("Cast", [name], node, attributes=to, main=False)

    steps = (
        real(code) if code else made.constant(f"{node.output[0]}/code", np.zeros((), np.float32))
    )
    if read.zero_point:
        steps = made.emit("Sub", [steps, real(read.zero_point)], node, main=False)
    return made.emit("Mul", [steps, read.scale], node, main=False)


_MOVES = frozenset(
    {
        *("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape"),
        *("Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
        *("Upsample",),
    }
)

_STANDARD: dict[str, Rule] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
}

_CONTRIB: dict[str, Rule] = {
    "DequantizeLinear": _pair,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulIntegerToFloat": _to_float,
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearConcat": _concat,
    "QLinearConv": _conv,
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearMatMul": _matmul,
    "QLinearMul": _binary("Mul"),
    "QLinearReduceMean": _unary("ReduceMean"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearSoftmax": _unary("Softmax", "opset"),
    "QLinearWhere": _where,
    "QuantizeLinear": _pair,
}

# Domain -> operators this file removes.
OPERATOR_FORM: Mapping[str, frozenset[str]] = {
    "": frozenset(_STANDARD),
    "com.microsoft": frozenset(_CONTRIB),
}
