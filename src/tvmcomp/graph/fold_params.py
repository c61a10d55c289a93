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
        operands = [self.value(arg) for arg in tensors]
        if any(array is None for array in operands):
            return None
        result = self._evaluate(call, [array for array in operands if array is not None])
        if result is None:
            return None
        result = np.asarray(result, str(call.ty.dtype))
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
        if op == "concat":
            return np.concatenate(operands, int(call.attrs.axis or 0))
        return None


def _fields(arg: Expr) -> list[Expr]:
    if isinstance(arg, relax.Tuple):
        return list(arg.fields)
    return [arg] if isinstance(arg.ty, relax.TensorType) else []
