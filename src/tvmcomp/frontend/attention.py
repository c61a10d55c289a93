"""Attention spelled out, whichever framework's operator it came from.

    softmax(matmul(q, permute_dims(k)) * scale + mask) @ v      q: [B, H, L, E], k: [B, G, S, E], v: [B, G, S, D]

Where several heads share keys and values, H is a multiple of G, heads are [B, G, H/G, ...] in between.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import shape_of

__all__ = ["attention", "causal_mask", "merge_heads", "split_heads"]

Emit = Callable[[Expr], Expr]


def attention(
    emit: Emit,
    operands: tuple[Expr, Expr, Expr],
    *,
    scale: float | None = None,
    masks: tuple[Expr, ...] = (),
) -> Expr:
    """The result, [B, H, L, D]; `scale` is 1/sqrt(E) by default; masks broadcast to [B, H, L, S].

    A boolean mask keeps what is true; a float one is added.
    """
    q, k, v = operands
    *lead, heads, length, width = shape_of(q)
    shared = shape_of(k)[-3]
    grouped = shared != heads
    if grouped:
        if heads % shared:
            raise ValueError(f"{heads} heads of queries cannot share {shared} heads of keys")
        q = emit(relax.op.reshape(q, (*lead, shared, heads // shared, length, width)))
        k, v = (emit(relax.op.expand_dims(x, -3)) for x in (k, v))
    rank = len(shape_of(k))
    turned = emit(relax.op.permute_dims(k, [*range(rank - 2), rank - 1, rank - 2]))
    scores = emit(relax.op.matmul(q, turned))
    dtype = str(q.ty.dtype)
    factor = width**-0.5 if scale is None else scale
    scores = emit(relax.op.multiply(scores, relax.const(factor, dtype)))
    for mask in masks:
        added = _additive(emit, mask, dtype)
        scores = emit(relax.op.add(scores, _grouped(emit, added, shared) if grouped else added))
    result = emit(relax.op.matmul(emit(relax.op.nn.softmax(scores, axis=-1)), v))
    if not grouped:
        return result
    return emit(relax.op.reshape(result, (*lead, heads, length, shape_of(v)[-1])))


def causal_mask(rows: int, columns: int, dtype: str = "float32") -> Expr:
    """Row i sees columns up to i."""
    return relax.const(np.triu(np.full((rows, columns), -inf, dtype), 1), dtype)


def split_heads(emit: Emit, x: Expr, heads: int) -> Expr:
    """[B, L, H*E] -> [B, H, L, E]."""
    batch, length, width = shape_of(x)
    x = emit(relax.op.reshape(x, (batch, length, heads, width // heads)))
    return emit(relax.op.permute_dims(x, [0, 2, 1, 3]))


def merge_heads(emit: Emit, x: Expr) -> Expr:
    """[B, H, L, E] -> [B, L, H*E]."""
    batch, heads, length, width = shape_of(x)
    x = emit(relax.op.permute_dims(x, [0, 2, 1, 3]))
    return emit(relax.op.reshape(x, (batch, length, heads * width)))


def _additive(emit: Emit, mask: Expr, dtype: str) -> Expr:
    if str(mask.ty.dtype) != "bool":
        return mask if str(mask.ty.dtype) == dtype else emit(relax.op.astype(mask, dtype))
    return emit(relax.op.where(mask, relax.const(0.0, dtype), relax.const(-inf, dtype)))


def _grouped(emit: Emit, mask: Expr, shared: int) -> Expr:
    """[B, H or 1, L, S] with the heads of one key next to each other."""
    shape = shape_of(mask)
    if len(shape) < 3:
        return mask
    *lead, heads, length, width = shape
    split = (1, 1) if heads == 1 else (shared, heads // shared)
    return emit(relax.op.reshape(mask, (*lead, *split, length, width)))
