"""`Flow`: a canonical Relax function as named nodes with definitions and uses, the form the matchers walk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from tvm import IRModule, relax
from tvm.ir import GenericConst

from tvmcomp.compress.weight_form import WeightForm, match_weight
from tvmcomp.graph.layers import QParams

__all__ = ["Flow", "Node", "constant_value", "names_in"]


# Operators whose result is codes where their operand is.
_MOVES = ("relax.permute_dims", "relax.reshape")
_CODES = ("uint8", "int8")


def constant_value(expr: relax.Expr) -> np.ndarray | None:
    """The array of a Relax constant, or None for anything else."""
    return expr.value.numpy() if isinstance(expr, GenericConst) else None


@dataclass(frozen=True, eq=False)
class Node:
    """One binding `name = op(args)`; `op` is "" for what is not an operator call (a tuple, a getitem)."""

    name: str
    index: int
    op: str
    value: relax.Expr
    shape: tuple[int, ...]
    dtype: str

    @property
    def args(self) -> list[relax.Expr]:
        return list(self.value.args) if isinstance(self.value, relax.Call) else []


def _operator(value: relax.Expr) -> str:
    if isinstance(value, relax.Call) and hasattr(value.op, "name"):
        return str(value.op.name)
    return ""


def _type_of(expr: relax.Expr) -> tuple[tuple[int, ...], str]:
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        return (), ""
    return tuple(int(dim) for dim in ty.shape.values), str(ty.dtype)


def names_in(value: relax.Expr) -> Iterator[str]:
    """Every variable an expression reads."""
    if isinstance(value, relax.Var):
        yield value.name
    elif isinstance(value, relax.Call):
        for arg in value.args:
            yield from names_in(arg)
    elif isinstance(value, relax.Tuple):
        for item in value.fields:
            yield from names_in(item)
    elif isinstance(value, relax.TupleGetItem):
        yield from names_in(value.tuple_value)


class Flow:
    """`main` of a canonical module: nodes in order, and who uses what (graph outputs count as uses)."""

    def __init__(self, module: IRModule, params: Mapping[str, np.ndarray]) -> None:
        function = module["main"]
        self.function = function
        # Functions an importer wrote in TensorIR; `main` calls them.
        self.helpers = {var: f for var, f in module.functions.items() if var.name_hint != "main"}
        self.params = params
        self.inputs = [var for var in function.params if var.name not in params]
        self.nodes: list[Node] = []
        self.by_name: dict[str, Node] = {}
        self.constants: dict[str, relax.Expr] = {}
        self._uses: Counter[str] = Counter()
        self._users: dict[str, list[Node]] = {}
        for block in function.body.blocks:
            for binding in block.bindings:
                self._add(binding.var, binding.value)
        self.result = function.body.body
        self.outputs = self._output_names()
        self._uses.update(self.outputs)
        # An input that holds codes is read as the first node that dequantizes it says.
        self._input_codes: dict[str, QParams] = {}
        for node in self.nodes:
            self._read_input(node)

    def _add(self, var: relax.Var, value: relax.Expr) -> None:
        shape, dtype = _type_of(var)
        node = Node(var.name, len(self.nodes), _operator(value), value, shape, dtype)
        self.nodes.append(node)
        self.by_name[node.name] = node
        for name in names_in(value):
            self._uses[name] += 1
            self._users.setdefault(name, []).append(node)

    def _read_input(self, node: Node) -> None:
        if node.op != "relax.dequantize":
            return
        source = self.resolve(node.args[0])
        while (inner := self.node(source)) is not None and inner.op in _MOVES:
            source = self.resolve(inner.args[0])
        qparams = self.qparams(node)
        if qparams is not None and source in self.inputs and _type_of(source)[1] in _CODES:
            self._input_codes.setdefault(source.name, qparams)

    def _output_names(self) -> list[str]:
        result = self.result
        while isinstance(result, relax.Var) and result.name in self.by_name:
            value = self.by_name[result.name].value
            if not isinstance(value, relax.Var | relax.Tuple):
                break
            result = value
        fields = result.fields if isinstance(result, relax.Tuple) else [result]
        return [self._output_name(index, field) for index, field in enumerate(fields)]

    def _output_name(self, index: int, field: relax.Expr) -> str:
        """An output is a value's name; one that is a constant gets a name to be stored under."""
        value = self.resolve(field)
        if isinstance(value, relax.Var):
            return str(value.name)
        name = f"output{index}"
        while name in self.by_name or any(var.name == name for var in self.function.params):
            name += "_"
        self.constants[name] = value
        return name

    def resolve(self, expr: relax.Expr) -> relax.Expr:
        """Follow plain `a = b` bindings to the variable they stand for."""
        while isinstance(expr, relax.Var) and expr.name in self.by_name:
            value = self.by_name[expr.name].value
            if not isinstance(value, relax.Var):
                break
            expr = value
        return expr

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor: a graph input or what a node computes."""
        if name in self.by_name:
            return self.by_name[name].shape
        return next(_type_of(var)[0] for var in self.inputs if var.name == name)

    def dtype(self, name: str) -> str:
        """Dtype of a tensor."""
        if name in self.by_name:
            return self.by_name[name].dtype
        return next(_type_of(var)[1] for var in self.inputs if var.name == name)

    def node(self, expr: relax.Expr) -> Node | None:
        """The node that defines `expr`, None for inputs, params and constants."""
        expr = self.resolve(expr)
        return self.by_name.get(expr.name) if isinstance(expr, relax.Var) else None

    def fields(self, expr: relax.Expr) -> list[relax.Expr]:
        """The members of a tuple written in place or bound to a variable."""
        node = self.node(expr)
        value = node.value if node is not None else expr
        return list(value.fields) if isinstance(value, relax.Tuple) else []

    def weight(self, expr: relax.Expr) -> WeightForm | None:
        """The compressed weight `expr` stands for, None for anything else."""
        node = self.node(expr)
        return None if node is None else match_weight(node.value, self.params)

    def param(self, expr: relax.Expr) -> np.ndarray | None:
        """The array behind a parameter, a constant or a compressed weight, None for a computed value or an input."""
        expr = self.resolve(expr)
        if not isinstance(expr, relax.Var):
            return constant_value(expr)
        array = self.params.get(expr.name)
        if array is not None:
            return np.asarray(array)
        form = self.weight(expr)
        return None if form is None else form.dequantized()

    def only_user(self, node: Node) -> Node | None:
        """The single node that uses `node`, None if it has several uses or is an output."""
        if self._uses[node.name] != 1 or node.name in self.outputs:
            return None
        return self._users[node.name][0]

    def users(self, name: str) -> list[Node]:
        """Every node that reads `name`."""
        return self._users.get(name, [])

    def dequantized(self, expr: relax.Expr) -> tuple[str, QParams] | None:
        """(codes' name, qparams) if `expr` is `dequantize(codes)` per tensor, else None."""
        node = self.node(expr)
        return None if node is None else self.dequantize_source(node)

    def dequantize_source(self, node: Node) -> tuple[str, QParams] | None:
        """The same for the dequantize node itself.

        Codes that were quantized with other qparams are not ours: a tensor's zero point also fills its halo, so
        there is one per tensor.
        """
        if node.op != "relax.dequantize":
            return None
        qparams = self.codes(node.args[0])
        if qparams is None or qparams != self.qparams(node):
            return None
        return self.resolve(node.args[0]).name, qparams

    def codes(self, expr: relax.Expr) -> QParams | None:
        """How a tensor of codes is read: a quantize node's, an input's, or either one moved; None for others."""
        expr = self.resolve(expr)
        node = self.node(expr)
        if node is None:
            return self._input_codes.get(expr.name) if isinstance(expr, relax.Var) else None
        if node.op == "relax.quantize":
            return self.qparams(node)
        if node.op in _MOVES and node.dtype in _CODES:
            return self.codes(node.args[0])
        return None

    def qparams(self, node: Node) -> QParams | None:
        """Scale and zero point of a quantize or dequantize node, per tensor, float32 to 8 bits; else None."""
        if node.op == "relax.quantize":
            if node.dtype not in _CODES or _type_of(node.args[0])[1] != "float32":
                return None
        elif node.dtype != "float32":
            return None
        scale, zero_point = self.param(node.args[1]), self.param(node.args[2])
        if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
            return None
        return QParams(float(np.float32(scale.reshape(()))), int(zero_point.reshape(())))
