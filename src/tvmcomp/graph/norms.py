"""Layer norm and RMS norm have one operator each, however a framework spelled them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, scalar, shape_of
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["Norms"]

Axes = tuple[int, ...]


class Norms(Rewriter):
    """
    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)      ->  nn.layer_norm(x, 1, 0, axes, eps)
    x / sqrt(mean(x^2) + eps)                              ->  nn.rms_norm(x, 1, axes, eps)
    layer_norm(x, g, b) * c, layer_norm(x, g, b) + c       ->  layer_norm(x, g * c, b * c), layer_norm(x, g, b + c)
    rms_norm(x, g) * c                                     ->  rms_norm(x, g * c)

    over one axis, of RMS norm the last, with c along it. A square may be a power or a product, a root a power.
    """

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        op = op_name(call)
        if op in ("multiply", "divide"):
            norm = self._norm(call)
            if norm is not None or op == "divide":
                return norm
            return self._with(call, np.multiply)
        return self._with(call, np.add) if op == "add" else None

    def _norm(self, call: relax.Call) -> Expr | None:
        pairs = [tuple(call.args)]
        if op_name(call) == "multiply":
            pairs.append(tuple(call.args)[::-1])
        for value, factor in pairs:
            if not isinstance(value, relax.Var) or shape_of(value) != shape_of(call):
                continue
            spread = self._under_root(factor, inverse=op_name(call) == "multiply")
            added = None if spread is None else self.definition(spread, "add")
            epsilon = None if added is None else scalar(added.args[1])
            square = None if added is None else self._mean(added.args[0])
            if square is None or epsilon is None or epsilon < 0:
                continue
            root, axes = self._squared(square[0]), square[1]
            if root is None or len(axes) != 1:
                continue
            found = self._emitted(value, root, axes, epsilon)
            if found is not None:
                return found
        return None

    def _emitted(self, value: Expr, root: Expr, axes: Axes, epsilon: float) -> Expr | None:
        """The norm whose numerator is `value` and whose denominator squares `root`."""
        dtype = str(value.ty.dtype)
        length = shape_of(value)[axes[0]]
        one = np.ones(length, dtype)
        centered, squared = self._centered(value), self._centered(root)
        if centered is not None and squared is not None:
            if not centered[0].same_as(squared[0]) or not centered[1] == squared[1] == axes:
                return None
            gamma, beta = self.param("norm.weight", one), self.param("norm.bias", one * 0)
            return relax.op.nn.layer_norm(
                centered[0], gamma, beta, axes=list(axes), epsilon=epsilon
            )
        # TVM has RMS norm over the last axis alone.
        if value.same_as(root) and axes[0] == len(shape_of(value)) - 1:
            gamma = self.param("norm.weight", one)
            return relax.op.nn.rms_norm(value, gamma, axes=list(axes), epsilon=epsilon)
        return None

    def _under_root(self, expr: Expr, *, inverse: bool) -> Expr | None:
        """The y of 1 / sqrt(y), or of sqrt(y)."""
        for op, exponent in (("rsqrt", -0.5), ("sqrt", 0.5)):
            if inverse == (exponent < 0) and (found := self.definition(expr, op)) is not None:
                return found.args[0]
        power = self.definition(expr, "power")
        if power is not None and scalar(power.args[1]) == (-0.5 if inverse else 0.5):
            return power.args[0]
        quotient = self.definition(expr, "divide")
        if inverse and quotient is not None and scalar(quotient.args[0]) == 1.0:
            return self._under_root(quotient.args[1], inverse=False)
        return None

    def _mean(self, expr: Expr) -> tuple[Expr, Axes] | None:
        """(y, axes) of a mean of y that keeps its axes."""
        mean = self.definition(expr, "mean")
        if mean is None or not mean.attrs.keepdims or mean.attrs.axis is None:
            return None
        rank = len(shape_of(expr))
        return mean.args[0], tuple(int(axis) % rank for axis in mean.attrs.axis)

    def _squared(self, expr: Expr) -> Expr | None:
        """The y of y squared."""
        for op in ("power", "multiply", "square"):
            found = self.definition(expr, op)
            if found is None:
                continue
            if op == "power" and scalar(found.args[1]) != 2.0:
                return None
            if op == "multiply" and not found.args[0].same_as(found.args[1]):
                return None
            return found.args[0]
        return None

    def _centered(self, expr: Expr) -> tuple[Expr, Axes] | None:
        """(y, axes) of y - mean(y)."""
        difference = self.definition(expr, "subtract")
        mean = None if difference is None else self._mean(difference.args[1])
        if difference is None or mean is None or not difference.args[0].same_as(mean[0]):
            return None
        return mean

    def _with(self, call: relax.Call, combine: Callable[..., np.ndarray]) -> Expr | None:
        """A factor or a summand along its axis joins a norm that nothing else reads."""
        x, c = call.args
        for op in ("nn.layer_norm", "nn.rms_norm"):
            norm = self.definition(x, op)
            if norm is None or self.uses(x) != 1 or (op == "nn.rms_norm" and combine is np.add):
                continue
            held = [self.value(arg) for arg in norm.args[1:]]
            along = self._along(c, norm)
            if along is None or any(array is None for array in held):
                return None
            gamma, *rest = (np.asarray(array) for array in held)
            gamma = gamma if combine is np.add else gamma * along
            parts = [gamma, *(combine(beta, along) for beta in rest)]
            names = [self._name(arg, c) for arg in norm.args[1:]]
            changed = [
                self.param(name, np.asarray(part, gamma.dtype))
                for name, part in zip(names, parts, strict=True)
            ]
            return relax.Call(norm.op, [norm.args[0], *changed], norm.attrs, norm.ty_args)
        return None

    def _along(self, c: Expr, norm: relax.Call) -> np.ndarray | None:
        """`c` as one number per element of the normalised axis, None if it has other axes."""
        array, shape = self.value(c), shape_of(norm.args[0])
        axes = [int(axis) % len(shape) for axis in norm.attrs.axes]
        if array is None or len(axes) != 1 or array.ndim > len(shape):
            return None
        full = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
        if any(size != 1 for axis, size in enumerate(full.shape) if axis != axes[0]):
            return None
        return np.broadcast_to(full.reshape(-1), (shape[axes[0]],))

    def _name(self, arg: Expr, c: Expr) -> str:
        """The name the framework gave the weight, once one of it is known."""
        own = str(arg.name) if isinstance(arg, relax.Var) else "norm.weight"
        made = own.startswith("norm.") and isinstance(c, relax.Var)
        ending = own.rpartition(".")[2]
        return str(c.name) if made and str(c.name).endswith(ending) else own
