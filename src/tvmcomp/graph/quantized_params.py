"""Parameters that arrive as codes: moves act on the codes, and what is no layer's weight becomes plain float."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import leaves, op_name, shape_of
from tvmcomp.graph.rewrite import Rewriter
from tvmcomp.model import Model

__all__ = ["QuantizedParams"]

# Operators that read a weight, and at which operand.
_WEIGHT_AT = {
    "matmul": 1,
    "nn.conv1d": 1,
    "nn.conv1d_transpose": 1,
    "nn.conv2d": 1,
    "nn.conv2d_transpose": 1,
    "nn.conv3d": 1,
    "take": 0,
}
_RESHAPES = ("reshape", "squeeze", "expand_dims", "flatten")
_MOVES = ("permute_dims", *_RESHAPES)


class QuantizedParams(Rewriter):
    """
    quantize(p)                        ->  q          the codes, computed once
    dequantize(q: int32)               ->  p: f32     a bias
    add(x, dequantize(q))              ->  add(x, p)  likewise any operand that is no layer's weight
    permute_dims(dequantize(q, axis))  ->  dequantize(q', axis')
    reshape(dequantize(q))             ->  dequantize(q')      where an axis with scales stays whole

    The weights of convolutions, dense layers and look-ups stay codes.
    """

    STARTS_FROM = frozenset({"quantize", "dequantize"})

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._weights = _weight_vars(self._main)
        self._is_weight = False

    def bind(self, var: relax.Var, expr: Expr) -> Expr:
        self._is_weight = var in self._weights
        return super().bind(var, expr)

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        op = op_name(call)
        if op == "quantize":
            return self._quantized(call)
        if op == "dequantize":
            return self._dequantized(call)
        if op in _MOVES:
            return self._moved(call)
        return None

    def _quantized(self, call: relax.Call) -> Expr | None:
        arrays = self._arrays(call)
        if arrays is None:
            return None
        real, scale, zero_point = arrays
        axis = int(call.attrs.axis)
        info = np.iinfo(str(call.ty.dtype))
        steps = np.rint(real.astype(np.float32) / _along(scale.astype(np.float32), real.ndim, axis))
        codes = np.clip(steps + _along(zero_point, real.ndim, axis), info.min, info.max)
        return self._known(call, codes.astype(str(call.ty.dtype)))

    def _dequantized(self, call: relax.Call) -> Expr | None:
        arrays = self._arrays(call)
        if arrays is None or (self._is_weight and arrays[0].dtype.itemsize == 1):
            return None
        codes, scale, zero_point = arrays
        axis, dtype = int(call.attrs.axis), str(call.ty.dtype)
        steps = codes.astype(np.int64) - _along(zero_point.astype(np.int64), codes.ndim, axis)
        real = steps.astype(dtype) * _along(scale.astype(dtype), codes.ndim, axis)
        return self._known(call, real.astype(dtype))

    def _moved(self, call: relax.Call) -> Expr | None:
        inner = self.definition(call.args[0], "dequantize")
        arrays = None if inner is None else self._arrays(inner)
        if inner is None or arrays is None or not isinstance(inner.args[0], relax.Var):
            return None
        codes, scale, _ = arrays
        kept = int(inner.attrs.axis)
        axis: int | None
        if op_name(call) == "permute_dims":
            axes = call.attrs.axes
            order = range(codes.ndim)[::-1] if axes is None else [int(a) % codes.ndim for a in axes]
            moved, axis = codes.transpose(order), list(order).index(kept)
        else:
            moved = codes.reshape(shape_of(call))
            last = max(moved.ndim - 1, 0)
            axis = last if scale.size == 1 else _kept_axis(codes.shape, moved.shape, kept)
        if axis is None:
            return None
        param = self.param(str(inner.args[0].name), moved)
        return relax.op.dequantize(
            param, inner.args[1], inner.args[2], axis, str(inner.attrs.out_dtype)
        )

    def _known(self, call: relax.Call, array: np.ndarray) -> Expr:
        """In the place of `call`, what it computes: a scalar is a constant, all else a parameter."""
        x = call.args[0]
        if isinstance(x, relax.Var):
            return self.param(str(x.name), array)
        return relax.const(array, str(array.dtype))

    def _arrays(self, call: relax.Call) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Operand, scale and zero point if all are parameters or constants."""
        values = [self.value(arg) for arg in call.args]
        if any(value is None for value in values):
            return None
        x, scale, zero_point = (np.asarray(value) for value in values)
        return x, scale, zero_point


def _along(values: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """A vector laid along `axis`; one value as it is."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def _kept_axis(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    """Where `axis` is after a reshape that keeps it whole, None if it does not."""
    inner = int(np.prod(before[axis + 1 :]))
    return next(
        (
            i
            for i, size in enumerate(after)
            if size == before[axis] and int(np.prod(after[i + 1 :])) == inner
        ),
        None,
    )


def _weight_vars(main: relax.Function) -> set[relax.Var]:
    """Variables whose every use, through moves, is as the weight of a layer."""
    uses: dict[relax.Var, list[Callable[[set[relax.Var]], bool]]] = {}
    order: list[relax.Var] = []
    for block in main.body.blocks:
        for binding in block.bindings:
            order.append(binding.var)
            for index, arg in enumerate(_arguments(binding.value)):
                for var in leaves(arg):
                    uses.setdefault(var, []).append(_use(binding, index))
    outputs = set(leaves(main.body.body))
    weights: set[relax.Var] = set()
    for var in reversed(order):
        reads = uses.get(var, [])
        if reads and var not in outputs and all(read(weights) for read in reads):
            weights.add(var)
    return weights


def _arguments(value: Expr) -> list[Expr]:
    return list(value.args) if isinstance(value, relax.Call) else [value]


def _use(binding: relax.VarBinding, index: int) -> Callable[[set[relax.Var]], bool]:
    op = op_name(binding.value)
    if op in _MOVES or isinstance(binding.value, relax.Var):
        return lambda weights: binding.var in weights
    return lambda _: _WEIGHT_AT.get(op) == index
