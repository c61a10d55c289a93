"""Operators that choose elements by position or value: top-k, one-hot, arg-max with ties, gathers by rule."""

from __future__ import annotations

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype
from tvm import relax, te, tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from tvmcomp.frontend.block import shape_of
from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["SELECT"]


def _top_k(node: OnnxNode) -> Expr:
    """(values, indices) of the k largest or smallest along an axis, in order; of equal ones the first."""
    stored = node.ints(1, "k")
    if stored is None:
        raise ValueError("k is missing")
    rank = len(node.shape)
    axis = node.number("axis", -1) % rank
    count = stored[0]
    order = [a for a in range(rank) if a != axis] + [axis]
    x = node.x if axis == rank - 1 else node.emit(relax.op.permute_dims(node.x, order))
    shape = shape_of(x)
    length = shape[-1]
    rows = int(np.prod(shape[:-1], dtype=np.int64))
    flat = node.emit(relax.op.reshape(x, (rows, length)))
    picked = node.compute(lambda t: _selected(t, count, node.number("largest", 1) != 0), flat)
    results = []
    for index in range(2):
        part = node.emit(relax.TupleGetItem(picked, index))
        part = node.emit(relax.op.reshape(part, (*shape[:-1], count)))
        if axis != rank - 1:
            back = [order.index(a) for a in range(rank)]
            part = node.emit(relax.op.permute_dims(part, back))
        results.append(part)
    return relax.Tuple(results)


def _selected(x: te.Tensor, count: int, largest: bool) -> list[te.Tensor]:
    """x: [rows, n] -> values and int64 indices [rows, count]: each element is put where it belongs in the best so far.

    A NaN counts as larger than everything.
    """
    rows, length = (int(size) for size in x.shape)
    kind = str(x.dtype)
    floating = kind.startswith("float")

    def before(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
        ahead = a > b if largest else a < b
        if not floating:
            return ahead
        nan, other = tirx.isnan(a), tirx.isnan(b)
        if largest:
            return tirx.any(ahead, tirx.all(nan, tirx.Not(other)))
        return tirx.any(ahead, tirx.all(tirx.Not(nan), other))

    def body(ins: list[tirx.Buffer], outs: list[tirx.Buffer]) -> tirx.Stmt:
        source, values, indices = ins[0], outs[0], outs[1]
        with IRBuilder() as builder, T.parallel(0, rows) as row, T.serial(0, length) as at:
            new = source[row, at]
            full = at >= count
            last = values[row, count - 1]
            with T.If(tirx.any(tirx.Not(full), before(new, last))), T.Then():  # noqa: SIM117
                with T.serial(0, count) as step:
                    place = count - 1 - step
                    left = tirx.max(place - 1, 0)
                    moves = tirx.all(place > 0, before(new, values[row, left]))
                    ends = tirx.any(place == at, before(new, values[row, place]))
                    with T.If(place <= at), T.Then(), T.seq_scope():
                        with T.If(tirx.all(ends, tirx.Not(moves))), T.Then(), T.seq_scope():
                            T.buffer_store(values, new, [row, place])
                            T.buffer_store(indices, at.astype("int64"), [row, place])
                        with T.If(moves), T.Then(), T.seq_scope():
                            T.buffer_store(values, values[row, left], [row, place])
                            T.buffer_store(indices, indices[row, left], [row, place])
        return builder.get()

    return te.extern([(rows, count), (rows, count)], [x], body, name="top_k", dtype=[kind, "int64"])


def _one_hot(node: OnnxNode) -> Expr:
    """on where an index names the place, off elsewhere; an index outside [-depth, depth) names none."""
    depth = node.setting(1, "depth")
    if depth is None:
        raise ValueError("depth is missing")
    count = int(depth.reshape(()))
    shape = node.shape
    axis = node.number("axis", -1) % (len(shape) + 1)
    integers = node.dtype if node.dtype in ("int32", "int64") else "int64"
    indices = node.emit(relax.op.astype(node.x, integers))
    below = relax.op.less(indices, relax.const(0, integers))
    moved = relax.op.add(indices, relax.const(count, integers))
    indices = node.emit(relax.op.where(below, moved, indices))
    indices = node.emit(relax.op.expand_dims(indices, axis))
    places = np.arange(count, dtype=integers).reshape([-1, *[1] * (len(shape) - axis)])
    hit = node.emit(relax.op.equal(indices, relax.const(places)))
    values = node.emit(relax.op.split(node[2], 2, axis=0))
    off, on = (
        node.emit(relax.op.reshape(node.emit(relax.TupleGetItem(values, side)), ()))
        for side in range(2)
    )
    return relax.op.where(hit, on, off)


def _eye_like(node: OnnxNode) -> Expr:
    rows, columns = node.shape
    kind = node.attrs.get("dtype")
    dtype = node.dtype if kind is None else str(tensor_dtype_to_np_dtype(int(kind)))
    return relax.const(np.eye(rows, columns, node.number("k", 0), dtype), dtype)


def _compress(node: OnnxNode) -> Expr:
    """The slices a stored condition chooses."""
    condition = node.setting(1, "condition")
    if condition is None:
        raise ValueError("condition is missing")
    x = node.x
    axis = node.attrs.get("axis")
    if axis is None:
        x = node.emit(relax.op.reshape(x, (int(np.prod(node.shape)),)))
    chosen = np.flatnonzero(condition).astype(np.int64)
    return relax.op.take(x, relax.const(chosen), axis=int(axis or 0))


def _reverse_sequence(node: OnnxNode) -> Expr:
    """The first sequence_lens[b] steps of each sequence b backwards, the others as they are."""
    time, batch = node.number("time_axis", 0), node.number("batch_axis", 1)

    def reverse(x: te.Tensor, lengths: te.Tensor) -> te.Tensor:
        def element(*index: tirx.Var) -> tirx.PrimExpr:
            at = index[time].astype("int64")
            limit = tirx.min(
                lengths(index[batch]).astype("int64"), tirx.const(node.shape[time], "int64")
            )
            source = list(index)
            source[time] = tirx.if_then_else(at < limit, limit - 1 - at, at)
            return x(*source)

        return te.compute(x.shape, element, "reversed")

    return node.compute(reverse, node.x, node[1])


def _tensor_scatter(node: OnnxNode) -> Expr:
    """A cache with `update` written at each batch's index along an axis, wrapping around in circular mode."""
    rank, shape = len(node.shape), node.shape
    axis = node.number("axis", -2) % rank
    length, given = shape[axis], shape_of(node[1])[axis]
    circular = node.text("mode", "linear") == "circular"

    def scatter(cache: te.Tensor, update: te.Tensor, *starts: te.Tensor) -> te.Tensor:
        def element(*index: tirx.Var) -> tirx.PrimExpr:
            start = starts[0](index[0]).astype("int64") if starts else tirx.const(0, "int64")
            offset = index[axis].astype("int64") - start
            if circular:
                offset = tirx.floormod(offset, tirx.const(length, "int64"))
            within = tirx.all(offset >= 0, offset < given)
            source = list(index)
            source[axis] = tirx.max(tirx.min(offset, given - 1), 0)
            return tirx.if_then_else(within, update(*source), cache(*index))

        return te.compute(cache.shape, element, "written")

    starts = [] if node.get(2) is None else [node[2]]
    return node.compute(scatter, node.x, node[1], *starts)


SELECT: dict[str, Converter] = {
    "Compress": _compress,
    "EyeLike": _eye_like,
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
    "TensorScatter": _tensor_scatter,
    "TopK": _top_k,
}
