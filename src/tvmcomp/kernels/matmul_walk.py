"""The shape of a product of two activations as its kernel walks it, in bytes, and the blocks it is cut into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from tvmcomp.graph.layers import MatMul, TensorSpec
from tvmcomp.kernels.layout import Layout

__all__ = ["Batch", "Columns", "Walk", "column_blocks", "walk_of"]


@dataclass(frozen=True)
class Batch:
    """One leading axis: its length and its step in a, b and y; 0 where an operand is broadcast."""

    count: int
    a: int
    b: int
    y: int


@dataclass(frozen=True)
class Walk:
    """[batch..., m, k] @ [batch..., k, n].

    a_start, a_row:       of a, whose k are contiguous.
    b_start, b_k, b_n:    of b; one of the two steps is an element.
    y_start, y_row:       of y, whose n are contiguous; `room` elements of a row may be stored.
    """

    batch: tuple[Batch, ...]
    m: int
    n: int
    k: int
    a_start: int
    a_row: int
    b_start: int
    b_k: int
    b_n: int
    y_start: int
    y_row: int
    room: int

    @property
    def matrices(self) -> int:
        return prod(axis.count for axis in self.batch)

    @property
    def products(self) -> int:
        """Multiplications in all, as a measure of work."""
        return self.matrices * self.m * self.n * self.k


@dataclass(frozen=True)
class Columns:
    """`count` blocks of `vectors` vectors of columns from vector `start`."""

    start: int
    count: int
    vectors: int


def column_blocks(total: int, vectors: int, *, whole: bool) -> tuple[Columns, ...]:
    """`total` vectors cut into blocks; a last vector that is not stored whole is in a block that runs once."""
    full, rest = divmod(total, vectors)
    if not whole and rest == 0 and full > 1:
        full, rest = full - 1, vectors
    cuts = [Columns(0, full, vectors)] if full else []
    if rest:
        cuts.append(Columns(full * vectors, 1, rest))
    return tuple(cuts)


def walk_of(
    layer: MatMul, tensors: Mapping[str, TensorSpec], layouts: Mapping[str, Layout]
) -> Walk | None:
    """The walk of `layer`; None if a's k, y's n, or neither of b's axes are contiguous in memory."""
    a_name, b_name = layer.inputs
    a_shape, a_steps = _transposed(tensors[a_name], layouts[a_name], layer.perm_a)
    b_shape, b_steps = _transposed(tensors[b_name], layouts[b_name], layer.perm_b)
    # y is stored transposed by perm_y; the walk is over the product before that.
    inverse = None if layer.perm_y is None else tuple(int(i) for i in np.argsort(layer.perm_y))
    y_shape, y_steps = _transposed(tensors[layer.output], layouts[layer.output], inverse)
    a, b, y = layouts[a_name], layouts[b_name], layouts[layer.output]
    if a_steps[-1] != a.itemsize or y_steps[-1] != y.itemsize or b.itemsize not in b_steps[-2:]:
        return None
    lead = len(y_shape) - 2
    axes = [
        Batch(count, _step(a_shape, a_steps, i - lead), _step(b_shape, b_steps, i - lead), step)
        for i, (count, step) in enumerate(zip(y_shape[:lead], y_steps[:lead], strict=True))
        if count > 1
    ]
    stored_last = layer.perm_y is None or layer.perm_y[-1] == len(y_shape) - 1
    return Walk(
        batch=_merged(axes),
        m=y_shape[-2],
        n=y_shape[-1],
        k=a_shape[-1],
        a_start=a.offset(0, 0, 0),
        a_row=a_steps[-2],
        b_start=b.offset(0, 0, 0),
        b_k=b_steps[-2],
        b_n=b_steps[-1],
        y_start=y.offset(0, 0, 0),
        y_row=y_steps[-2],
        room=y.pitch if stored_last else y_shape[-1],
    )


def _transposed(
    spec: TensorSpec, layout: Layout, perm: tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and steps of transpose(tensor, perm)."""
    axes = perm if perm is not None else range(len(spec.shape))
    steps = layout.steps(spec.shape)
    return tuple(spec.shape[i] for i in axes), tuple(steps[i] for i in axes)


def _step(shape: tuple[int, ...], steps: tuple[int, ...], axis: int) -> int:
    """Along the leading axis `axis` (-1 is the one before the matrix) of an operand that may lack it."""
    index = len(shape) - 2 + axis
    return steps[index] if index >= 0 and shape[index] > 1 else 0


def _merged(axes: list[Batch]) -> tuple[Batch, ...]:
    """Neighbouring axes over which every operand walks evenly are one."""
    merged: list[Batch] = []
    for axis in axes:
        before = merged[-1] if merged else None
        if before is not None and all(
            getattr(before, side) == axis.count * getattr(axis, side) for side in ("a", "b", "y")
        ):
            merged[-1] = replace(axis, count=before.count * axis.count)
        else:
            merged.append(axis)
    return tuple(merged)
