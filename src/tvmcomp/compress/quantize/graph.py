"""`Graph`: a canonical model as placement reads it: who makes and who uses each tensor, and what each operator is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import as_array, leaves, op_name, shape_of
from tvmcomp.graph.cost import layer_costs
from tvmcomp.graph.dataflow import Dataflow
from tvmcomp.model import Model

__all__ = ["POINTWISE", "SAME_SCALE", "Graph", "Weighted"]

# Unary once all other operands are single numbers.
POINTWISE = frozenset(
    {
        "abs",
        "add",
        "clip",
        "divide",
        "erf",
        "exp",
        "log",
        "maximum",
        "minimum",
        "multiply",
        "negative",
        "nn.gelu",
        "nn.gelu_tanh",
        "nn.relu",
        "nn.silu",
        "nn.softplus",
        "power",
        "rsqrt",
        "sigmoid",
        "sqrt",
        "subtract",
        "tanh",
    }
)
# Operators that move or compare elements: codes in, the same codes out.
SAME_SCALE = {
    "nn.max_pool2d": "max_pool",
    "image.resize2d": "resize",
    "reshape": "reshape",
    "permute_dims": "permute_dims",
    "flatten": "flatten",
    "squeeze": "squeeze",
    "expand_dims": "expand_dims",
    "strided_slice": "slice",
    "nn.pad": "pad",
    "max": "max_pool",
}
_ELEMENTWISE = {"add": "add", "subtract": "add", "multiply": "mul", "divide": "mul"}
_LAYERS = ("matmul", "nn.conv1d", "nn.conv2d", "nn.conv2d_transpose")


@dataclass(frozen=True)
class Weighted:
    """A convolution, dense layer or embedding whose weight is the parameter `weight`."""

    op: str
    weight: str
    out_axis: int
    in_axis: int


class Graph:
    """Indexes over one model, by name; tensors are inputs and results, not parameters."""

    def __init__(self, model: Model) -> None:
        self.params = model.params
        self.flow = Dataflow.of(model.module)
        self.values = {str(var.name): value for var, value in self.flow.bindings.items()}
        self.outputs = tuple(str(var.name) for var in self.flow.outputs)
        self.inputs = tuple(
            name for var in self.flow.parameters if (name := str(var.name)) not in self.params
        )
        self._variables = {
            str(var.name): var for var in (*self.flow.parameters, *self.flow.bindings)
        }
        self._macs = {cost.name: cost.macs for cost in layer_costs(model)}
        self._uses = Counter(self.outputs)
        self._users: dict[str, list[str]] = {}
        for name in self.values:
            reads = self.reads(name)
            self._uses.update(reads)
            for read in dict.fromkeys(reads):
                self._users.setdefault(read, []).append(name)

    def op(self, name: str) -> str:
        """The operator that makes a tensor, "" for an input."""
        return op_name(self.values.get(name))

    def args(self, name: str) -> list[Expr]:
        """Operands of the operator that makes a tensor."""
        return list(self.values[name].args)

    def attrs(self, name: str) -> Any:
        """Attributes of the operator that makes a tensor."""
        return self.values[name].attrs

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor or parameter."""
        return shape_of(self._variables[name])

    def is_float(self, name: str) -> bool:
        """Whether a name stands for one float32 tensor."""
        ty = self._variables[name].ty
        return isinstance(ty, relax.TensorType) and str(ty.dtype) == "float32"

    def reads(self, name: str) -> list[str]:
        """The tensors a tensor is made from, with repetition."""
        names = [str(var.name) for var in leaves(self.values[name])]
        return [read for read in names if read not in self.params]

    def users(self, name: str) -> list[str]:
        """The tensors made from a tensor."""
        return self._users.get(name, [])

    def only_user(self, name: str) -> str | None:
        """The one tensor made from `name`; None if it is read more than once or is an output."""
        return self.users(name)[0] if self._uses[name] == 1 and self.users(name) else None

    def constant(self, expr: Expr) -> np.ndarray | None:
        """What a parameter, a constant or a number holds; None for a tensor."""
        if isinstance(expr, relax.Var):
            return self.params.get(str(expr.name))
        return as_array(expr)

    def weighted(self, name: str) -> Weighted | None:
        """A convolution (NHWC, OHWI), dense layer or embedding with a float32 parameter as weight, else None."""
        op = self.op(name)
        if op not in ("nn.conv2d", "matmul", "take"):
            return None
        operand = self.args(name)[0 if op == "take" else 1]
        weight = str(operand.name) if isinstance(operand, relax.Var) else ""
        if weight not in self.params or not self.is_float(weight):
            return None
        shape = self.shape(weight)
        if op == "take":
            rows = len(shape) == 2 and self.attrs(name).axis is not None
            rows = rows and int(self.attrs(name).axis) == 0 and len(self.reads(name)) == 1
            return Weighted("embedding", weight, 0, 1) if rows else None
        if op == "matmul":
            return Weighted("dense", weight, 1, 0) if len(shape) == 2 else None
        attrs = self.attrs(name)
        if (attrs.data_layout, attrs.kernel_layout) != ("NHWC", "OHWI"):
            return None
        depthwise = int(attrs.groups) > 1 and shape[3] == 1
        return Weighted("depthwise_conv2d" if depthwise else "conv2d", weight, 0, 3)

    def macs(self, name: str) -> int:
        """Multiply-accumulates of the operator that makes a tensor."""
        return self._macs.get(name, 0)

    def is_bias(self, name: str, before: str) -> bool:
        """Whether `name` adds one number per channel (or one for all) to `before`."""
        if self.op(name) != "add" or self.reads(name) != [before]:
            return False
        added = [array for arg in self.args(name) if (array := self.constant(arg)) is not None]
        channels = self.shape(name)[-1]
        if len(added) != 1 or self.shape(before) != self.shape(name):
            return False
        return added[0].size == 1 or (added[0].size == channels and added[0].shape[-1] == channels)

    def is_scale(self, name: str, before: str) -> bool:
        """Whether `name` multiplies `before` with one number, or divides it by one."""
        if self.op(name) not in ("multiply", "divide") or self.reads(name) != [before]:
            return False
        array = self.constant(self.args(name)[1])
        if array is None or array.size != 1 or self.shape(before) != self.shape(name):
            return False
        value = float(array.reshape(()))
        return bool(np.isfinite(value)) and value != 0.0

    def arithmetic(self, name: str) -> str | None:
        """The target's word for an operator without weights that integer arithmetic covers, else None."""
        if not self.is_float(name) or not all(map(self.is_float, self.reads(name))):
            return None
        op, shape = self.op(name), self.shape(name)
        word = _ELEMENTWISE.get(op)
        if word is not None:
            return word if self._is_elementwise(name) else None
        if op == "matmul" and len(self.reads(name)) == 2:
            return (
                "matmul" if min(len(self.shape(read)) for read in self.reads(name)) >= 2 else None
            )
        if op == "concat" and self.reads(name):
            return "concat" if self._joins_floats(name) else None
        if op == "nn.avg_pool2d":
            attrs = self.attrs(name)
            return "avg_pool" if attrs.layout == "NHWC" and not attrs.ceil_mode else None
        if op == "mean":
            return "avg_pool" if self._reduces_neighbours(name) else None
        if op in ("nn.layer_norm", "nn.rms_norm"):
            axes = [int(axis) % len(shape) for axis in self.attrs(name).axes]
            constants = [self.constant(arg) for arg in self.args(name)[1:]]
            known = all(array is not None for array in constants)
            return "layer_norm" if known and axes == [len(shape) - 1] else None
        return None

    def is_residual(self, name: str) -> bool:
        """Whether `name` adds two tensors of one shape."""
        shapes = [self.shape(read) for read in self.reads(name)]
        return self.arithmetic(name) == "add" and shapes == [self.shape(name)] * 2

    def softmax_mask(self, name: str) -> str | None:
        """The scores of `scores + mask`, None where `name` is no such sum.

        A mask is a constant, or computed without a layer; of two such tensors, the smaller one.
        """
        if self.op(name) != "add" or not self.is_float(name):
            return None
        shape, reads = self.shape(name), self.reads(name)
        fitting = [read for read in reads if self.shape(read) == shape]
        if len(reads) == 1:
            return fitting[0] if fitting else None
        computed = [read for read in fitting if self.from_layer(read)]
        chosen = computed or (fitting if len(fitting) == 1 else [])
        others = [read for read in reads if read not in chosen]
        if len(chosen) != 1 or any(self.from_layer(read) for read in others):
            return None
        return chosen[0] if all(map(self.is_float, others)) else None

    def from_layer(self, name: str) -> bool:
        """Whether a convolution or matrix product is among what a tensor is made from."""
        return any(self.op(source) in _LAYERS for source in (name, *self.ancestors(name)))

    def ancestors(self, name: str) -> list[str]:
        """The tensors a tensor is made from, and those they are made from, without graph inputs."""
        found: dict[str, None] = {}
        pending = [name] if name in self.values else []
        while pending:
            for read in self.reads(pending.pop()):
                if read in self.values and read not in found:
                    found[read] = None
                    pending.append(read)
        return list(found)

    def _is_elementwise(self, name: str) -> bool:
        """Two tensors, or one and an array; one of them has the shape of the result."""
        op, shape = self.op(name), self.shape(name)
        shapes = [self.shape(read) for read in self.reads(name)]
        if len(shapes) == 2:
            return op in ("add", "multiply") and shape in shapes
        array = self.constant(self.args(name)[1])
        return shapes == [shape] and array is not None and array.size > 1

    def _joins_floats(self, name: str) -> bool:
        fields = self.args(name)[0].fields
        arrays = [array for field in fields if (array := self.constant(field)) is not None]
        return len(self.reads(name)) + len(arrays) == len(fields) and all(
            array.dtype == np.float32 for array in arrays
        )

    def _reduces_neighbours(self, name: str) -> bool:
        """A reduction over axes that follow one another."""
        rank = len(self.shape(self.reads(name)[0]))
        axes = sorted(int(axis) % rank for axis in self.attrs(name).axis or range(rank))
        return bool(axes) and axes == list(range(axes[0], axes[-1] + 1))

    def is_pointwise(self, name: str) -> bool:
        """Whether a tensor is, element by element, a function of the tensors it is made from."""
        if self.op(name) not in POINTWISE or not self.is_float(name):
            return False
        constants = [self.constant(arg) for arg in self.args(name)]
        return all(array is None or array.size == 1 for array in constants) and all(
            self.shape(read) == self.shape(name) for read in self.reads(name)
        )

    def moves(self, name: str) -> str | None:
        """The word for an operator that keeps its input's codes ("max_pool", "reshape" ...), else None."""
        if len(self.reads(name)) != 1 or not self.is_float(name):
            return None
        word = SAME_SCALE.get(self.op(name))
        if word == "resize" and self.attrs(name).method not in ("nearest_neighbor", "linear"):
            return None
        if word == "pad" and (str(self.attrs(name).pad_mode), self._pad_value(name)) != (
            "constant",
            0.0,
        ):
            return None
        if self.op(name) == "max" and not self._reduces_neighbours(name):
            return None
        return word

    def _pad_value(self, name: str) -> float:
        return float(self.attrs(name).pad_value)
