"""Operators TVM legalizes wrongly, legalized by us."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import relax, te, tirx
from tvm.relax.transform.legalize_ops.common import LegalizeFunc

__all__ = ["LEGALIZE"]


def _extreme(
    combine: Callable[[tirx.PrimExpr, tirx.PrimExpr], tirx.PrimExpr], start: float
) -> LegalizeFunc:
    """max and min over axes, from infinity on: TVM starts from the largest finite number."""

    def compute(x: te.Tensor, axes: list[int], keepdims: bool) -> te.Tensor:
        reducer = te.comm_reducer(combine, lambda kind: tirx.const(start, kind), name="extreme")
        steps = {axis: te.reduce_axis((0, x.shape[axis]), f"k{axis}") for axis in axes}
        kept = [axis for axis in range(len(x.shape)) if keepdims or axis not in steps]
        shape = [1 if axis in steps else x.shape[axis] for axis in kept]

        def element(*index: tirx.Var) -> tirx.PrimExpr:
            places = dict(zip(kept, index, strict=True)) | {a: s.var for a, s in steps.items()}
            return reducer(
                x(*(places[axis] for axis in range(len(x.shape)))), axis=list(steps.values())
            )

        return te.compute(shape, element, "extreme")

    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        x = call.args[0]
        rank = len(x.ty.shape)
        axes = range(rank) if call.attrs.axis is None else call.attrs.axis
        found = sorted({int(axis) % rank for axis in axes})
        if not str(x.ty.dtype).startswith("float") or not found:
            return _stock(call)(builder, call)
        return builder.call_te(compute, x, found, bool(call.attrs.keepdims))

    return legalize


def _stock(call: relax.Call) -> LegalizeFunc:
    return call.op.get_attr("FLegalize")


LEGALIZE: dict[str, LegalizeFunc] = {
    "relax.max": _extreme(lambda a, b: tirx.max(a, b), -math.inf),
    "relax.min": _extreme(lambda a, b: tirx.min(a, b), math.inf),
}
