"""A dense layer whose result is cut into parts is a dense layer per part: queries, keys and values apart."""

from __future__ import annotations

from math import prod

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, shape_of
from tvmcomp.graph.moves import axes_of
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["SplitDense"]

_ENDINGS = (".weight", "_weight", ".bias", "_bias")


class SplitDense(Rewriter):
    """
    moves(matmul(x, w) + b)[..., i:j]  ->  moves'(matmul(x, w[:, i':j']) + b[i':j'])    w: [K, N]

    Moves are reshapes and permutations; the cut is a range of the layer's outputs.
    """

    def __init__(self, model: object) -> None:
        super().__init__(model)  # type: ignore[arg-type]
        self._parts: dict[tuple[relax.Var, int, int], relax.Var] = {}

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        return self._slice(call) if op_name(call) == "strided_slice" else None

    def _slice(self, call: relax.Call) -> Expr | None:
        shape, result = shape_of(call.args[0]), shape_of(call)
        changed = [axis for axis in range(len(shape)) if shape[axis] != result[axis]]
        axes, begins = ([int(field.value) for field in arg.fields] for arg in call.args[1:3])
        steps = [int(f.value) for f in call.args[4].fields] if len(call.args) > 4 else []
        if len(changed) != 1 or any(step != 1 for step in steps):
            return None
        axis = changed[0]
        begin = begins[[a % len(shape) for a in axes].index(axis)]
        begin += shape[axis] if begin < 0 else 0
        return self._cut(call.args[0], axis, begin, begin + result[axis])

    def _cut(self, x: Expr, axis: int, begin: int, end: int) -> Expr | None:
        """x[begin:end] along `axis`, cut out of the dense layer x comes from; None if it comes from none."""
        for op in ("permute_dims", "reshape"):
            moved = self.definition(x, op)
            if moved is None:
                continue
            source, shape = moved.args[0], shape_of(x)
            if op == "permute_dims":
                inner = self._cut(source, axes_of(moved)[axis], begin, end)
                return (
                    None
                    if inner is None
                    else self.emit(relax.op.permute_dims(inner, axes_of(moved)))
                )
            place = _leading_part(shape_of(source), shape, axis)
            if place is None:
                return None
            inner = self._cut(source, place[0], begin * place[1], end * place[1])
            cut = (*shape[:axis], end - begin, *shape[axis + 1 :])
            return None if inner is None else self.emit(relax.op.reshape(inner, cut))
        return self._dense(x, begin, end) if axis == len(shape_of(x)) - 1 else None

    def _dense(self, x: Expr, begin: int, end: int) -> Expr | None:
        added = self.definition(x, "add")
        product = self.definition(x if added is None else added.args[0], "matmul")
        if product is None:
            return None
        weight = self.value(product.args[1])
        bias = None if added is None else self.value(added.args[1])
        if weight is None or weight.ndim != 2 or not isinstance(product.args[1], relax.Var):
            return None
        if added is not None and (bias is None or bias.shape != (weight.shape[1],)):
            return None
        result = self.emit(
            relax.op.matmul(product.args[0], self._part(product.args[1], weight, begin, end))
        )
        if added is None or bias is None:
            return result
        return self.emit(relax.op.add(result, self._part(added.args[1], bias, begin, end)))

    def _part(self, whole: Expr, array: np.ndarray, begin: int, end: int) -> Expr:
        """Outputs begin..end of a parameter; layers that shared it share its parts."""
        if not isinstance(whole, relax.Var):
            return relax.const(array[..., begin:end], str(array.dtype))
        key = (whole, begin, end)
        if key not in self._parts:
            name = str(whole.name)
            number = begin // (end - begin) if begin % (end - begin) == 0 else f"{begin}_{end}"
            ending = next((tail for tail in _ENDINGS if name.endswith(tail)), "")
            part = f"{name.removesuffix(ending)}.{number}{ending}"
            self._parts[key] = self.param(part, np.ascontiguousarray(array[..., begin:end]))
        return self._parts[key]


def _leading_part(
    source: tuple[int, ...], target: tuple[int, ...], axis: int
) -> tuple[int, int] | None:
    """(the axis of `source` whose leading part `axis` of `target` is, elements per step of it), else None."""
    before, after = prod(target[:axis]), prod(target[axis + 1 :])
    for place in reversed(range(len(source))):
        if prod(source[:place]) == before:
            inner = prod(source[place + 1 :])
            return (place, after // inner) if after % inner == 0 else None
    return None
