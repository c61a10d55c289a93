"""Arithmetic on parameters alone is done once, here, instead of on every run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import leaves, op_name, shape_of
from tvmcomp.graph.rewrite import Rewriter
from tvmcomp.model import Model

__all__ = ["FoldParams"]

Fold = Callable[..., np.ndarray]

_ELEMENTWISE: dict[str, Fold] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "floor_mod": np.mod,
    "mod": np.fmod,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "negative": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "less": np.less,
    "greater": np.greater,
    "equal": np.equal,
    "where": np.where,
    "matmul": np.matmul,
}
_RESHAPES = ("reshape", "squeeze", "expand_dims", "flatten")


class FoldParams(Rewriter):
    """f(p, q, const)  ->  p'      p' = f(p, q, const), computed in numpy

    The result keeps the name of the single parameter it came from. quantize and dequantize are never
    folded: compressed weights stay compressed.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._folded: dict[relax.Var, list[relax.Var]] = {}
        for var, array in self.arrays.items():
            if array.ndim == 0:
                self.env[var] = relax.const(array, str(array.dtype))

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        tensors = [part for arg in call.args for part in _fields(arg)]
        operands = [array for arg in tensors if (array := self.value(arg)) is not None]
        if len(operands) < len(tensors):
            return None
        if op_name(call) == "split":
            parts = zip(_split(call, operands[0]), call.ty.fields, strict=True)
            return relax.Tuple([self._kept(name, call, part, ty) for part, ty in parts])
        result = self._evaluate(call, operands)
        return None if result is None else self._kept(name, call, result, call.ty)

    def _kept(self, name: str, call: relax.Call, result: np.ndarray, ty: relax.TensorType) -> Expr:
        """A constant, or a parameter called after the one it came from."""
        result = np.asarray(result, str(ty.dtype))
        if result.dtype.kind != "f" or result.size <= 1:
            return relax.const(result, str(result.dtype))
        sources = {var for var in leaves(call) if result.size >= self.arrays[var].size}
        if len(sources) != 1:
            return self.param(name, result)
        # A weight two layers share is folded once, and stays shared.
        source = sources.pop()
        same = [made for made in self._folded.get(source, []) if self._equal(made, result)]
        if not same:
            same = [self.param(str(source.name), result)]
            self._folded.setdefault(source, []).append(same[0])
        return same[0]

    def _equal(self, made: relax.Var, result: np.ndarray) -> bool:
        return np.array_equal(self.arrays[made], result)

    def _evaluate(self, call: relax.Call, operands: list[np.ndarray]) -> np.ndarray | None:
        op = op_name(call)
        if op == "arange":
            return np.arange(*(float(arg.value) for arg in call.args))
        if op in ("zeros", "ones"):
            return np.full(shape_of(call), float(op == "ones"))
        if op == "full":
            return np.full(shape_of(call), operands[0])
        if not operands:
            return None
        if op in _ELEMENTWISE:
            return _ELEMENTWISE[op](*operands)
        if op == "clip":
            return np.clip(operands[0], float(call.args[1].value), float(call.args[2].value))
        if op in _RESHAPES:
            return operands[0].reshape(shape_of(call)) if call.ty.shape else None
        if op == "permute_dims":
            axes = call.attrs.axes
            return operands[0].transpose(None if axes is None else [int(a) for a in axes])
        if op == "broadcast_to":
            return np.broadcast_to(operands[0], shape_of(call))
        if op == "astype":
            return operands[0]
        if op == "take" and call.attrs.axis is not None:
            return _taken(operands[0], operands[1], int(call.attrs.axis))
        if op == "concat":
            return np.concatenate(operands, int(call.attrs.axis or 0))
        if op == "stack":
            return np.stack(operands, int(call.attrs.axis or 0))
        if op == "matmul":
            return np.matmul(*(array.astype(np.float64) for array in operands))
        if op == "strided_slice":
            return _slice(call, operands[0])
        return None


def _slice(call: relax.Call, array: np.ndarray) -> np.ndarray | None:
    """strided_slice, whose bounds are counted from the end where negative and cut to the axis."""
    lists = [[int(field.value) for field in arg.fields] for arg in call.args[1:]]
    axes, begin, end = lists[:3]
    strides = lists[3] if len(lists) > 3 else [1] * len(axes)
    if min(strides, default=1) < 0:
        return None
    index = [slice(None)] * array.ndim
    for axis, *bounds in zip(axes, begin, end, strides, strict=True):
        index[axis] = slice(*bounds)
    return array[tuple(index)]


def _split(call: relax.Call, array: np.ndarray) -> list[np.ndarray]:
    parts = call.attrs.indices_or_sections
    where = int(parts) if not hasattr(parts, "__len__") else [int(index) for index in parts]
    return np.array_split(array, where, int(call.attrs.axis))


def _taken(array: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray | None:
    """Rows by index; None where one is outside, which is for the model's author to hear of at run time."""
    length = array.shape[axis]
    inside = index.size and index.min() >= -length and index.max() < length
    return np.take(array, index.astype(np.int64), axis) if inside else None


def _fields(arg: Expr) -> list[Expr]:
    if isinstance(arg, relax.Tuple):
        return list(arg.fields)
    return [arg] if isinstance(arg.ty, relax.TensorType) else []
