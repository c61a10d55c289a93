"""Constant factors and summands per channel fold into the weights before them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, shape_of
from tvmcomp.graph.fold_batch_norm import weight_prefix
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["FoldScale"]

# The axis of the weight that counts output channels, which are the result's last axis.
_CHANNEL_AXES = {"nn.conv2d": 0, "matmul": 1}


class FoldScale(Rewriter):
    """
    multiply(layer(x, w), c)            ->  layer(x, w * c)                     divide likewise
    multiply(add(layer(x, w), b), c)    ->  add(layer(x, w * c), b * c)
    add(add(layer(x, w), b), d)         ->  add(layer(x, w), b + d)

    layer: conv2d in NHWC, OHWI, or matmul with w: [K, N]. b, c: one number, or one per channel; d: one per
    channel; computed in float64. A layer whose result is read elsewhere too, or whose weight is, keeps its
    weights. A factor that is zero or not finite stays: it may hide or make a NaN.
    """

    STARTS_FROM: ClassVar[frozenset[str]] = frozenset(_CHANNEL_AXES)

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        op = op_name(call)
        if op not in ("multiply", "divide", "add"):
            return None
        x, constant = call.args
        array = self._along(constant, x, call)
        if array is None or self.uses(x) > 1:
            return None
        added = self.definition(x, "add")
        if op == "add":
            # A number is part of an activation more often than of a bias: x + 3 of a hard sigmoid.
            return None if added is None or array.size == 1 else self._biased(added, array)
        factor = array if op == "multiply" else 1.0 / np.where(array, array, np.inf)
        if not (np.isfinite(array) & (array != 0)).all():
            return None
        if added is None:
            return self._scaled(x, factor)
        bias = self._along(added.args[1], added.args[0], added)
        layer = None if bias is None else self._scaled(added.args[0], factor)
        if layer is None or bias is None:
            return None
        return relax.op.add(self.emit(layer), self._param(added.args[1], layer, bias * factor))

    def _along(self, constant: Expr, x: Expr, call: relax.Call) -> np.ndarray | None:
        """`constant` as one number per channel of x, or one for all; None for anything else."""
        array, shape = self.value(constant), shape_of(call)
        if array is None or array.dtype.kind != "f" or shape_of(x) != shape:
            return None
        if array.size != 1 and array.shape[-1] != array.size:
            return None
        return array.reshape(-1).astype(np.float64)

    def _scaled(self, x: Expr, factor: np.ndarray) -> relax.Call | None:
        """The layer x is, with its weight times `factor`."""
        layer, weight = self._layer(x)
        if layer is None or weight is None or self.uses(layer.args[1]) > 1:
            return None
        along = [1] * weight.ndim
        along[_CHANNEL_AXES[op_name(layer)]] = factor.size
        array = (weight * factor.reshape(along)).astype(weight.dtype)
        scaled = self.param(str(layer.args[1].name), array)
        return self.block.typed(
            relax.Call(layer.op, [layer.args[0], scaled], layer.attrs, layer.ty_args)
        )

    def _biased(self, added: relax.Call, array: np.ndarray) -> Expr | None:
        """The bias of a layer plus `array`."""
        layer, _ = self._layer(added.args[0])
        bias = self._along(added.args[1], added.args[0], added)
        if layer is None or bias is None:
            return None
        return relax.op.add(added.args[0], self._param(added.args[1], layer, bias + array))

    def _layer(self, x: Expr) -> tuple[relax.Call | None, np.ndarray | None]:
        """The layer that nothing but one operator reads, and its weight."""
        for op, axis in _CHANNEL_AXES.items():
            call = self.definition(x, op)
            weight = None if call is None else self.value(call.args[1])
            if call is None or weight is None or self.uses(x) > 1:
                continue
            layouts = op == "matmul" or (call.attrs.data_layout, call.attrs.kernel_layout)
            known = isinstance(call.args[1], relax.Var) and weight.dtype.kind == "f"
            if not known or layouts not in (True, ("NHWC", "OHWI")) or weight.ndim <= axis:
                continue
            if op == "matmul" and weight.ndim != 2:
                continue
            return call, weight
        return None, None

    def _param(self, bias: Expr, layer: relax.Call, array: np.ndarray) -> relax.Var:
        """The new bias, [C], under the old one's name."""
        weight = layer.args[1]
        known = isinstance(bias, relax.Var)
        name = str(bias.name) if known else f"{weight_prefix(str(weight.name))}.bias"
        channels = shape_of(layer)[-1]
        dtype = str(layer.ty.dtype)
        return self.param(name, np.broadcast_to(array, (channels,)).astype(dtype))
