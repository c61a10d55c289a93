"""Quantize and dequantize as every importer spells them, so that later rooms see one form."""

from __future__ import annotations

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import as_array, shape_of

__all__ = ["dequantize", "quantize"]


def quantize(x: Expr, scale: Expr, zero_point: Expr | None, axis: int, dtype: str) -> Expr:
    """saturate(rint(x / scale) + zero_point) as `dtype`; `axis` counts only where `scale` is a vector."""
    scale, zero_point, axis = _operands(x, scale, zero_point, axis, dtype)
    return relax.op.quantize(x, scale, zero_point, axis, dtype)


def dequantize(codes: Expr, scale: Expr, zero_point: Expr | None, axis: int) -> Expr:
    """(codes - zero_point) * scale in the dtype of `scale`."""
    dtype = str(scale.ty.dtype)
    scale, zero_point, axis = _operands(codes, scale, zero_point, axis, str(codes.ty.dtype))
    return relax.op.dequantize(codes, scale, zero_point, axis, dtype)


def _operands(
    x: Expr, scale: Expr, zero_point: Expr | None, axis: int, dtype: str
) -> tuple[Expr, Expr, int]:
    if zero_point is None:
        zero_point = relax.const(np.zeros(shape_of(scale), dtype), dtype)
    rank = len(shape_of(x))
    per_tensor = all(size == 1 for size in (*shape_of(scale), *shape_of(zero_point)))
    if per_tensor:
        return _scalar(scale), _scalar(zero_point), max(rank - 1, 0)
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} of a quantization is outside a tensor of rank {rank}")
    if len(shape_of(scale)) != 1 or shape_of(scale)[0] != shape_of(x)[axis % rank]:
        raise ValueError(
            f"scales of shape {list(shape_of(scale))} do not fit axis {axis} of {list(shape_of(x))}; "
            "use one scale, or one per index of the axis"
        )
    return scale, zero_point, axis % rank


def _scalar(expr: Expr) -> Expr:
    """One number, whatever its rank."""
    if shape_of(expr) == ():
        return expr
    array = as_array(expr)
    if array is None:
        return relax.op.reshape(expr, ())
    return relax.const(array.reshape(()), str(expr.ty.dtype))
