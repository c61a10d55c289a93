"""Operators that work on each element by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["ELEMENTWISE"]


def _clip(node: OnnxNode) -> Expr | None:
    """clip(x, low, high); a bound that is missing or NaN does not bound."""
    bounds = []
    for index, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        array = node.value(index)
        if node.get(index) is not None and array is None:
            return None
        value = float(node.attrs.get(name, default)) if array is None else float(array.reshape(()))
        bounds.append(default if math.isnan(value) else value)
    return relax.op.clip(node.x, *bounds)


def _chain(combine: Callable[[Expr, Expr], Expr]) -> Converter:
    """An operator of any number of operands, two at a time."""

    def convert(node: OnnxNode) -> Expr | None:
        return reduce(combine, node.operands)

    return convert


ELEMENTWISE: dict[str, Converter] = {
    "Clip": _clip,
    "Max": _chain(relax.op.maximum),
    "Min": _chain(relax.op.minimum),
    "Sum": _chain(relax.op.add),
}
