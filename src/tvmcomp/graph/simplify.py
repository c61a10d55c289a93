"""Identities disappear and every activation gets one spelling, whichever framework wrote it."""

from __future__ import annotations

from math import inf, prod

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, scalar, shape_of
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["Simplify"]

# Slices a gather of constant indices may become.
_MOST_RUNS = 2

_RESHAPES = ("reshape", "squeeze", "expand_dims", "flatten")


class Simplify(Rewriter):
    """
    dropout(x), x + 0, x * 1, x / 1, x[:], no-op reshape, permute, cast, broadcast, pad  ->  x
    squeeze, expand_dims, flatten, reshape(reshape(x))  ->  reshape(x)
    maximum(x, 0), clip(x, 0, inf)                      ->  nn.relu(x)
    maximum(x, c), minimum(x, c), clip(clip(x))         ->  clip(x, low, high)
    x * sigmoid(x)                                      ->  nn.silu(x)
    clip(x * 1/6 + 0.5, 0, 1)                           ->  clip(x + 3, 0, 6) / 6
    (x * clip(x + 3, 0, 6)) / 6                         ->  x * (clip(x + 3, 0, 6) / 6)
    mean over H and W, global pools                     ->  mean(x, axis=[2, 3], keepdims=True)
    c + x, c * x (c constant, parameter or smaller)     ->  x + c, x * c
    x + broadcast_to(y)                                 ->  x + y
    split(x)[i], take(x, 3), take(x, [0, 2, 4])         ->  x[a:b], x[3], x[0:5:2]
    take(x, [4, 5, 0, 1, 2, 3])                         ->  concat(x[4:6], x[0:4])
    """

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        op = op_name(call)
        for rule in _RULES.get(op, ()):
            result = rule(self, call)
            if result is not None:
                return result
        return None

    def identity(self, call: relax.Call) -> Expr | None:
        """Same type out as in: `astype`, `broadcast_to` that do nothing."""
        x = call.args[0]
        same = shape_of(x) == shape_of(call) and x.ty.dtype == call.ty.dtype
        return x if same else None

    def no_pad(self, call: relax.Call) -> Expr | None:
        """A border of no width; one side may be cut by what the other gains."""
        return None if any(int(width) for width in call.attrs.pad_width) else call.args[0]

    def still_axes(self, call: relax.Call) -> Expr | None:
        """A permutation that moves nothing; one that moves only axes of length 1 is a reshape."""
        x = call.args[0]
        shape = shape_of(x)
        axes = call.attrs.axes
        order = list(range(len(shape)))[::-1] if axes is None else [int(a) for a in axes]
        order = [axis % len(shape) for axis in order]
        if order == sorted(order):
            return x
        moved = [axis for axis in order if shape[axis] > 1]
        return relax.op.reshape(x, shape_of(call)) if moved == sorted(moved) else None

    def dropout(self, call: relax.Call) -> Expr | None:
        """The first result is the input, and nothing reads the mask of a dropout that does nothing."""
        return relax.Tuple([call.args[0], call.args[0]])

    def reshape(self, call: relax.Call) -> Expr | None:
        """Every reshaping operator is `reshape`, and two in a row are one."""
        x = call.args[0]
        for op in _RESHAPES:
            inner = self.definition(x, op)
            if inner is not None:
                x = inner.args[0]
                break
        if shape_of(x) == shape_of(call):
            return x
        if op_name(call) == "reshape" and x.same_as(call.args[0]):
            return None
        return relax.op.reshape(x, shape_of(call))

    def whole_slice(self, call: relax.Call) -> Expr | None:
        """A slice that keeps everything."""
        x = call.args[0]
        return x if shape_of(x) == shape_of(call) and _positive_steps(call) else None

    def split(self, call: relax.Call) -> Expr | None:
        """Parts of a tensor are slices of it."""
        x = call.args[0]
        axis = int(call.attrs.axis) % len(shape_of(x))
        parts, start = [], 0
        for field in call.ty.fields:
            end = start + int(field.shape[axis])
            parts.append(self.emit(relax.op.strided_slice(x, [axis], [start], [end])))
            start = end
        return relax.Tuple(parts)

    def constant_take(self, call: relax.Call) -> Expr | None:
        """Constant indices with equal steps are a slice; a rotation is two, put together."""
        x, index = call.args[0], self.value(call.args[1])
        if index is None or call.attrs.axis is None or index.size == 0:
            return None
        axis = int(call.attrs.axis) % len(shape_of(x))
        length = shape_of(x)[axis]
        rows = index.reshape(-1).astype(np.int64)
        rows = np.where(rows < 0, rows + length, rows)
        if rows.min() < 0 or rows.max() >= length:
            return None
        runs = _runs(rows)
        if not runs or any(run.size > 1 and run[1] <= run[0] for run in runs):
            return None
        parts = [self.emit(_sliced(x, axis, run)) for run in runs]
        part = parts[0] if len(parts) == 1 else self.emit(relax.op.concat(parts, axis=axis))
        return part if index.ndim == 1 else relax.op.reshape(part, shape_of(call))

    def broadcast(self, call: relax.Call) -> Expr | None:
        """Elementwise operators broadcast by themselves."""
        args = [self._narrow(arg) for arg in call.args]
        shapes = [shape_of(arg) for arg in args]
        if all(new.same_as(old) for new, old in zip(args, call.args, strict=True)):
            return None
        if np.broadcast_shapes(*shapes) != shape_of(call):
            return None
        return relax.Call(call.op, args, call.attrs, call.ty_args)

    def _narrow(self, x: Expr) -> Expr:
        widened = self.definition(x, "broadcast_to")
        return x if widened is None else widened.args[0]

    def constant_last(self, call: relax.Call) -> Expr | None:
        """A commutative operator's constant comes second, else its smaller operand."""
        a, b = call.args
        first, second = self.value(a) is not None, self.value(b) is not None
        if first == second:
            first, second = prod(shape_of(a)) < prod(shape_of(b)), False
        if not first or second:
            return None
        swapped = relax.Call(call.op, [b, a], call.attrs, call.ty_args)
        rewritten = self.rewrite(self.block.typed(swapped), "")
        return swapped if rewritten is None else rewritten

    def neutral(self, call: relax.Call) -> Expr | None:
        """x + 0, x - 0, x * 1, x / 1."""
        x, c = call.args
        neutral = 0.0 if op_name(call) in ("add", "subtract") else 1.0
        keeps = scalar(c) == neutral and shape_of(x) == shape_of(call)
        return x if keeps and x.ty.dtype == call.ty.dtype else None

    def bound(self, call: relax.Call) -> Expr | None:
        """maximum and minimum with a constant are clips."""
        x, c = call.args
        limit = scalar(c)
        if limit is None or shape_of(x) != shape_of(call):
            return None
        low, high = (limit, inf) if op_name(call) == "maximum" else (-inf, limit)
        return self._clip(x, low, high)

    def clip(self, call: relax.Call) -> Expr | None:
        """Nested clips are one; one that only cuts at 0 is relu; a hard sigmoid has one spelling."""
        x, low, high = call.args[0], float(call.args[1].value), float(call.args[2].value)
        if low > high:
            # Of crossed bounds the upper counts, as in torch and ONNX; TVM's clip takes the lower.
            return relax.op.clip(x, high, high)
        merged = self._clip(x, low, high)
        if (low, high) == (0.0, 1.0) and (source := self._sixth(x)) is not None:
            return self._hard_sigmoid(source)
        if op_name(merged) == "clip" and merged.args[0].same_as(x):
            return None
        return merged

    def _clip(self, x: Expr, low: float, high: float) -> Expr:
        inner = self.definition(x, "clip")
        if inner is not None:
            # clip(clip(x, a, b), c, d) = clip(x, max(a, c), min(b, d)) only where the ranges meet.
            a, b = float(inner.args[1].value), float(inner.args[2].value)
            if max(a, low) <= min(b, high):
                x, low, high = inner.args[0], max(a, low), min(b, high)
        rectified = self.definition(x, "nn.relu")
        if rectified is not None and high >= 0.0:
            x, low = rectified.args[0], max(low, 0.0)
        if (low, high) == (0.0, inf):
            return relax.op.nn.relu(x)
        return relax.op.clip(x, low, high)

    def _sixth(self, x: Expr) -> Expr | None:
        """The y in y * (1/6) + 0.5."""
        added = self.definition(x, "add")
        if added is None or scalar(added.args[1]) != 0.5:
            return None
        for op, factor in (("multiply", 1.0 / 6.0), ("divide", 6.0)):
            scaled = self.definition(added.args[0], op)
            found = None if scaled is None else scalar(scaled.args[1])
            if scaled is not None and found is not None and abs(found / factor - 1.0) < 1e-6:
                return scaled.args[0]
        return None

    def _hard_sigmoid(self, x: Expr) -> Expr:
        shifted = self.emit(relax.op.add(x, relax.const(3.0, str(x.ty.dtype))))
        clipped = self.emit(relax.op.clip(shifted, 0.0, 6.0))
        return relax.op.divide(clipped, relax.const(6.0, str(x.ty.dtype)))

    def hard_swish(self, call: relax.Call) -> Expr | None:
        """The division of a hard swish belongs to its hard sigmoid."""
        product = self.definition(call.args[0], "multiply")
        if product is None or scalar(call.args[1]) != 6.0:
            return None
        for x, gate in (product.args, tuple(product.args)[::-1]):
            clipped = self.definition(gate, "clip")
            if clipped is None or (clipped.args[1].value, clipped.args[2].value) != (0, 6):
                continue
            shifted = self.definition(clipped.args[0], "add")
            if shifted is not None and scalar(shifted.args[1]) == 3.0:
                sixth = self.emit(relax.op.divide(gate, call.args[1]))
                return relax.op.multiply(x, sixth)
        return None

    def silu(self, call: relax.Call) -> Expr | None:
        """x * sigmoid(x)."""
        for x, gate in (call.args, tuple(call.args)[::-1]):
            sigmoid = self.definition(gate, "sigmoid")
            if sigmoid is not None and sigmoid.args[0].same_as(x):
                return relax.op.nn.silu(x)
        return None

    def spatial_mean(self, call: relax.Call) -> Expr | None:
        """One global average pool for all its spellings."""
        x = call.args[0]
        shape = shape_of(x)
        if len(shape) != 4 or not self._is_global(call, shape):
            return None
        pooled = relax.op.mean(x, axis=[2, 3], keepdims=True)
        if shape_of(call) != (*shape[:2], 1, 1):
            return relax.op.reshape(self.emit(pooled), shape_of(call))
        return None if op_name(call) == "mean" and _axes(call) == [2, 3] else pooled

    def _is_global(self, call: relax.Call, shape: tuple[int, ...]) -> bool:
        attrs = call.attrs
        if op_name(call) == "mean":
            return attrs.axis is not None and sorted(axis % 4 for axis in _axes(call)) == [2, 3]
        if attrs.layout != "NCHW":
            return False
        if op_name(call) == "nn.adaptive_avg_pool2d":
            return shape_of(call)[2:] == (1, 1)
        window = tuple(int(size) for size in attrs.pool_size)
        padded = any(int(pad) for pad in attrs.padding)
        return window == shape[2:] and not padded and prod(shape_of(call)[2:]) == 1


def _runs(rows: np.ndarray) -> list[np.ndarray]:
    """`rows` as one run of equal steps, or cut wherever a row is not the one after the last; empty if too often."""
    steps = np.diff(rows)
    if (steps == steps[:1]).all():
        return [rows]
    cuts = np.flatnonzero(steps != 1) + 1
    return np.split(rows, cuts) if cuts.size < _MOST_RUNS else []


def _sliced(x: Expr, axis: int, run: np.ndarray) -> Expr:
    step = int(run[1] - run[0]) if run.size > 1 else 1
    return relax.op.strided_slice(x, [axis], [int(run[0])], [int(run[-1]) + 1], [step])


def _axes(call: relax.Call) -> list[int]:
    return [int(axis) for axis in call.attrs.axis]


def _positive_steps(call: relax.Call) -> bool:
    strides = call.args[4].fields if len(call.args) > 4 else ()
    return all(int(stride.value) > 0 for stride in strides)


_RULES = {
    "nn.dropout": (Simplify.dropout,),
    "reshape": (Simplify.reshape,),
    "squeeze": (Simplify.reshape,),
    "expand_dims": (Simplify.reshape,),
    "flatten": (Simplify.reshape,),
    "permute_dims": (Simplify.still_axes,),
    "nn.pad": (Simplify.no_pad,),
    "broadcast_to": (Simplify.identity,),
    "astype": (Simplify.identity,),
    "strided_slice": (Simplify.whole_slice,),
    "split": (Simplify.split,),
    "take": (Simplify.constant_take,),
    "add": (Simplify.broadcast, Simplify.constant_last, Simplify.neutral),
    "subtract": (
        Simplify.broadcast,
        Simplify.neutral,
    ),
    "multiply": (Simplify.broadcast, Simplify.constant_last, Simplify.neutral, Simplify.silu),
    "divide": (Simplify.broadcast, Simplify.neutral, Simplify.hard_swish),
    "maximum": (Simplify.broadcast, Simplify.constant_last, Simplify.bound),
    "minimum": (Simplify.broadcast, Simplify.constant_last, Simplify.bound),
    "clip": (Simplify.clip,),
    "mean": (Simplify.spatial_mean,),
    "nn.avg_pool2d": (Simplify.spatial_mean,),
    "nn.adaptive_avg_pool2d": (Simplify.spatial_mean,),
}
