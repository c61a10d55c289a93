"""PyTorch's `index_put` as a scatter: TVM's own reads values past their end and adds from several threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.errors import ModelError
from tvmcomp.frontend.block import shape_of

__all__ = ["INDEX"]


def _index_put(node: Any, importer: Any) -> Expr:
    """x[i, j] = v  ->  scatter_nd(x, stack(i, j), v)      x with its indexed axes first

    i, j: integers that broadcast together; v broadcasts to x[i, j]. A mask takes one value: where(m, v, x).
    """
    emit = importer.block_builder.emit
    x, indices, values, *rest = node.args
    accumulate = bool(rest[0]) if rest else bool(node.kwargs.get("accumulate", False))
    x, values = importer.env[x], importer.env[values]
    chosen = {axis: importer.env[i] for axis, i in enumerate(indices) if i is not None}
    if any(str(index.ty.dtype) == "bool" for index in chosen.values()):
        return emit(_masked(x, chosen, values, accumulate))
    axes = list(chosen)
    shape = shape_of(x)
    chosen_shape = np.broadcast_shapes(*(shape_of(index) for index in chosen.values()))
    others = [axis for axis in range(len(shape)) if axis not in axes]
    # torch puts what is chosen where the indexed axes were if they are neighbours, else in front.
    neighbours = axes == list(range(axes[0], axes[-1] + 1))
    before = axes[0] if neighbours else 0
    full = [shape[axis] for axis in others]
    full[before:before] = chosen_shape
    if shape_of(values) != tuple(full):
        values = emit(relax.op.broadcast_to(values, full))
    moved = list(range(before, before + len(chosen_shape)))
    values = emit(_permuted(values, moved + [a for a in range(len(full)) if a not in moved]))
    order = axes + others
    columns = []
    for index in chosen.values():
        wide = emit(relax.op.astype(index, "int64"))
        wide = emit(relax.op.broadcast_to(wide, chosen_shape))
        columns.append(emit(relax.op.expand_dims(wide, [-1])))
    positions = emit(relax.op.concat(relax.Tuple(columns), axis=-1))
    turned = emit(_permuted(x, order))
    reduction = "add" if accumulate else "update"
    scattered = emit(relax.op.scatter_nd(turned, positions, values, reduction))
    return emit(_permuted(scattered, [order.index(axis) for axis in range(len(order))]))


def _permuted(x: Expr, order: list[int]) -> Expr:
    return x if order == sorted(order) else relax.op.permute_dims(x, order)


def _masked(x: Expr, chosen: dict[int, Expr], values: Expr, accumulate: bool) -> Expr:
    mask = next(iter(chosen.values()))
    if len(chosen) > 1 or 0 not in chosen or np.prod(shape_of(values)) != 1:
        raise ModelError(
            "index_put with a mask takes one value for a mask of the leading axes; use torch.where"
        )
    rank = len(shape_of(x)) - len(shape_of(mask))
    mask = relax.op.reshape(mask, [*shape_of(mask), *[1] * rank])
    value = relax.op.reshape(values, [1] * len(shape_of(x)))
    return relax.op.where(mask, relax.op.add(x, value) if accumulate else value, x)


INDEX: dict[str, Callable[[Any, Any], Expr]] = {
    "_unsafe_index_put.default": _index_put,
    "index_put.default": _index_put,
}
