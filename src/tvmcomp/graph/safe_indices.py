"""Indices computed at run time never leave their tensor, whichever importer the operator came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.errors import ModelError
from tvmcomp.frontend.block import op_name, scalar, shape_of
from tvmcomp.frontend.indexing import Indexed, check_constant, indexed
from tvmcomp.graph.rewrite import Rewriter
from tvmcomp.model import Model, Signature

__all__ = ["SafeIndices"]

# What moves indices about without computing new ones.
_MOVES = ("reshape", "squeeze", "expand_dims", "flatten", "permute_dims", "broadcast_to", "astype")


class SafeIndices(Rewriter):
    """
    take(x, i)            ->  take(x, w, mode="clip")               w = where(i < 0, i + n, i)
    gather(x, i)          ->  gather(x, clip(w, 0, n - 1))
    scatter(x, i, u)      ->  strided_slice(scatter(pad(x), w if 0 <= w < n else n, u))
    reverse_sequence(x, l)->  reverse_sequence(x, clip(l, 0, n))

    n: length of the indexed axis. Negative indices count from the end, as in ONNX; what is still outside
    reads the nearest element, or is not written. Indices that are constant, clipped already or found
    by argmax and the like are proven and stay as they are; a constant outside is a ModelError.
    A graph input that is used as an index gets its range in the signature, which the runtime checks.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        inputs = self._main.params[: len(model.signature.inputs)]
        self._inputs = {var: str(var.name) for var in inputs}
        self._bounds: dict[str, tuple[int, int]] = {}

    def run(self) -> Model:
        model = super().run()
        inputs = {
            name: replace(tensor, bounds=self._bounds.get(name))
            for name, tensor in model.signature.inputs.items()
        }
        return replace(model, signature=Signature(inputs, model.signature.outputs))

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        op = op_name(call)
        if op in _REWRITES:
            return _REWRITES[op](self, call)
        uses = indexed(call)
        if not uses:
            return None
        for use in uses:
            self._declare(use.indices, -min(use.lengths), min(use.lengths) - 1)
        if op == "scatter_elements":
            return self._scatter_elements(call, uses[0], name)
        if op == "scatter_nd":
            return self._scatter(call, uses[0], name)
        if op == "take":
            return self._take(call, uses[0], name)
        safe = [self._inside(use, name) for use in uses]
        if all(new.same_as(use.indices) for new, use in zip(safe, uses, strict=True)):
            return None
        indices = relax.Tuple(safe) if op == "index_tensor" else safe[0]
        return relax.Call(call.op, [call.args[0], indices], call.attrs, call.ty_args)

    # Reads

    def _take(self, call: relax.Call, use: Indexed, name: str) -> Expr:
        """Clipped by the operator itself, which costs less and quiets TVM's warning of its fast mode."""
        indices = self._constant(use, name)
        if indices is None:
            indices = use.indices if self._proven(use) else self._wrapped(use)
        return relax.op.take(call.args[0], indices, call.attrs.axis, mode="clip")

    def _inside(self, use: Indexed, name: str) -> Expr:
        """`use.indices` wrapped, then clipped."""
        constant = self._constant(use, name)
        if constant is not None:
            return constant
        if self._proven(use):
            return use.indices
        wrapped = self._wrapped(use)
        if len(use.lengths) == 1:
            return self.emit(relax.op.clip(wrapped, 0, use.lengths[0] - 1))
        dtype = str(wrapped.ty.dtype)
        last = relax.const(np.array(use.lengths, dtype) - 1, dtype)
        low = self.emit(relax.op.maximum(wrapped, relax.const(0, dtype)))
        return self.emit(relax.op.minimum(low, last))

    def _constant(self, use: Indexed, name: str) -> Expr | None:
        """Constant indices checked and counted from the front; None for computed ones."""
        values = self.value(use.indices)
        if values is None:
            return None
        check_constant(name, use, values)
        if not (values < 0).any():
            return use.indices
        lengths = np.array(use.lengths if len(use.lengths) > 1 else use.lengths[0], values.dtype)
        return relax.const(np.where(values < 0, values + lengths, values), str(values.dtype))

    def _proven(self, use: Indexed) -> bool:
        """Whether the indices are known to lie in [0, n - 1] of every axis they may meet."""
        expr, shortest = use.indices, min(use.lengths)
        while isinstance(expr, relax.Var) and expr in self.block.definitions:
            definition = self.block.definitions[expr]
            op = op_name(definition)
            if op in _MOVES:
                expr = definition.args[0]
            elif op == "clip":
                low, high = scalar(definition.args[1]), scalar(definition.args[2])
                if low is None or high is None:
                    return False
                return low >= 0 and high < shortest
            elif op == "floor_mod":
                divisor = scalar(definition.args[1])
                return divisor is not None and 0 < divisor <= shortest
            elif op in ("argmax", "argmin", "argsort"):
                axis = definition.attrs.axis
                shape = shape_of(definition.args[0])
                reach = int(np.prod(shape)) if axis is None else shape[int(axis) % len(shape)]
                return reach <= shortest
            else:
                return False
        values = self.value(expr)
        return values is not None and bool(((values >= 0) & (values < shortest)).all())

    def _wrapped(self, use: Indexed) -> Expr:
        """where(i < 0, i + n, i): no sum overflows, since n is added to negative numbers alone."""
        indices = self._widest(use.indices)
        if str(indices.ty.dtype) not in ("int32", "int64"):
            indices = self.emit(relax.op.astype(indices, "int64"))
        dtype = str(indices.ty.dtype)
        lengths = np.array(use.lengths if len(use.lengths) > 1 else use.lengths[0], dtype)
        negative = self.emit(relax.op.less(indices, relax.const(0, dtype)))
        counted = self.emit(relax.op.add(indices, relax.const(lengths, dtype)))
        return self.emit(relax.op.where(negative, counted, indices))

    def _widest(self, indices: Expr) -> Expr:
        """The indices before a narrowing cast, which would turn 2^32 into a sound 0.

        Reshapes on the way are done again on the wide ones.
        """
        expr, shape = indices, shape_of(indices)
        while isinstance(expr, relax.Var):
            definition = self.block.definitions.get(expr)
            op = op_name(definition)
            if definition is None:
                return indices
            if op == "astype" and str(definition.args[0].ty.dtype) in ("int32", "int64"):
                expr = definition.args[0]
                if shape_of(expr) == shape:
                    return expr
                return self.emit(relax.op.reshape(expr, shape))
            if op != "reshape":
                return indices
            expr = definition.args[0]
        return indices

    # Writes

    def _scatter(self, call: relax.Call, use: Indexed, name: str) -> Expr | None:
        """Every indexed axis gets one element more, which takes what belongs nowhere."""
        x, _, updates = call.args
        constant = self._constant(use, name)
        if constant is not None or self._proven(use):
            indices = use.indices if constant is None else constant
            if indices.same_as(use.indices):
                return None
            return relax.Call(call.op, [x, indices, updates], call.attrs, call.ty_args)
        shape = shape_of(x)
        rank = len(shape)
        axes = range(len(use.lengths))
        if op_name(call) == "scatter_elements":
            axes = range(int(call.attrs.axis) % rank, int(call.attrs.axis) % rank + 1)
        wrapped = self._wrapped(use)
        dtype = str(wrapped.ty.dtype)
        lengths = np.array(use.lengths if len(use.lengths) > 1 else use.lengths[0], dtype)
        end = relax.const(lengths, dtype)
        negative = self.emit(relax.op.less(wrapped, relax.const(0, dtype)))
        kept = self.emit(relax.op.where(negative, end, wrapped))
        indices = self.emit(relax.op.minimum(kept, end))
        spare = [shape[axis] + 1 if axis in axes else shape[axis] for axis in range(rank)]
        longer = self.emit(self._longer(x, spare))
        scattered = self.emit(
            relax.Call(call.op, [longer, indices, updates], call.attrs, call.ty_args)
        )
        return relax.op.strided_slice(
            scattered, list(axes), [0] * len(axes), [shape[axis] for axis in axes]
        )

    def _scatter_elements(self, call: relax.Call, use: Indexed, name: str) -> Expr | None:
        """TVM takes indices for as long as the tensor along every other axis; where they are shorter
        each gets its full position, and updates they do not reach are cut off."""
        x, indices, updates = call.args
        shape, count = shape_of(x), shape_of(indices)
        axis = int(call.attrs.axis) % len(shape)
        if shape_of(updates) != count:
            axes = list(range(len(count)))
            updates = self.emit(
                relax.op.strided_slice(updates, axes, [0] * len(count), list(count))
            )
        if shape[:axis] + shape[axis + 1 :] == count[:axis] + count[axis + 1 :]:
            whole = self.block.typed(
                relax.Call(call.op, [x, indices, updates], call.attrs, call.ty_args)
            )
            safe = self._scatter(whole, indexed(whole)[0], name)
            return whole if safe is None else safe
        dtype = str(indices.ty.dtype)
        columns = [relax.const(grid[..., None].astype(dtype), dtype) for grid in np.indices(count)]
        columns[axis] = self.emit(relax.op.expand_dims(indices, [-1]))
        positions = self.emit(relax.op.concat(relax.Tuple(columns), axis=-1))
        scatter = self.block.typed(
            relax.op.scatter_nd(x, positions, updates, str(call.attrs.reduction))
        )
        safe = self._scatter(scatter, indexed(scatter)[0], name)
        return scatter if safe is None else safe

    def _longer(self, x: Expr, shape: list[int]) -> Expr:
        width = [pad for new, old in zip(shape, shape_of(x), strict=True) for pad in (0, new - old)]
        return relax.op.nn.pad(x, width)

    # Others

    def _reverse_sequence(self, call: relax.Call) -> Expr | None:
        x, lengths = call.args
        length = shape_of(x)[int(call.attrs.seq_axis) % len(shape_of(x))]
        self._declare(lengths, 0, length)
        safe = self.emit(relax.op.clip(lengths, 0, length))
        return relax.Call(call.op, [x, safe], call.attrs, call.ty_args)

    def _unbounded(self, call: relax.Call) -> Expr | None:
        raise ModelError(
            f"{op_name(call)} goes where its operands say, which nothing bounds; "
            "export the model without it (a loss is not part of inference)"
        )

    # The signature

    def _declare(self, indices: Expr, low: int, high: int) -> None:
        """If the indices are a graph input as it came, it must lie in [low, high]."""
        expr = indices
        while isinstance(expr, relax.Var) and op_name(self.block.definitions.get(expr)) in _MOVES:
            expr = self.block.definitions[expr].args[0]
        name = self._inputs.get(expr) if isinstance(expr, relax.Var) else None
        if name is None or not str(expr.ty.dtype).startswith(("int", "uint")):
            return
        known = self._bounds.get(name, (low, high))
        self._bounds[name] = (max(low, known[0]), min(high, known[1]))


_REWRITES: dict[str, Callable[[SafeIndices, relax.Call], Expr | None]] = {
    "reverse_sequence": SafeIndices._reverse_sequence,
    # TVM's index_put reads its values past their end; importers make scatters of it.
    "index_put": SafeIndices._unbounded,
    "nn.nll_loss": SafeIndices._unbounded,
}
