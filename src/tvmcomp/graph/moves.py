"""Reshapes that only split axes move in front of permutations, where they meet other reshapes."""

from __future__ import annotations

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, shape_of
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["Moves"]


class Moves(Rewriter):
    """
    reshape(permute_dims(reshape(x)))  ->  permute_dims(reshape(x))     where the outer one splits axes, or adds
                                                                        or drops axes of length 1
    permute_dims(permute_dims(x))      ->  permute_dims(x)
    """

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        op = op_name(call)
        if op == "permute_dims":
            return self._composed(call)
        return self._split_first(call) if op == "reshape" else None

    def _composed(self, call: relax.Call) -> Expr | None:
        inner = self.definition(call.args[0], "permute_dims")
        if inner is None:
            return None
        first, second = axes_of(inner), axes_of(call)
        axes = [first[axis] for axis in second]
        source = inner.args[0]
        return source if axes == sorted(axes) else relax.op.permute_dims(source, axes)

    def _split_first(self, call: relax.Call) -> Expr | None:
        permuted = self.definition(call.args[0], "permute_dims")
        source = None if permuted is None else self.definition(permuted.args[0], "reshape")
        if permuted is None or source is None:
            return None
        target = shape_of(call)
        groups = _groups(shape_of(permuted), target)
        if groups is None:
            return None
        # Axes of length 1 come first; the parts of another axis stay together, in its place before the permutation.
        axes = axes_of(permuted)
        order = [place for place in range(len(target)) if target[place] == 1]
        order += [place for axis in range(len(axes)) for place in groups[axes.index(axis)]]
        reshaped = source.args[0]
        shape = tuple(target[place] for place in order)
        if shape_of(reshaped) != shape:
            reshaped = self.emit(relax.op.reshape(reshaped, shape))
        back = [order.index(place) for place in range(len(target))]
        return reshaped if back == sorted(back) else relax.op.permute_dims(reshaped, back)


def _groups(shape: tuple[int, ...], target: tuple[int, ...]) -> list[list[int]] | None:
    """For each axis of `shape` the axes of `target`, of more than 1, it is split into; None if some are merged."""
    groups: list[list[int]] = []
    places = iter(place for place in range(len(target)) if target[place] > 1)
    for size in shape:
        group: list[int] = []
        product = 1
        while product < size:
            group.append(next(places))
            product *= target[group[-1]]
        if product != size:
            return None
        groups.append(group)
    return groups


def axes_of(call: relax.Call) -> list[int]:
    """The axes of a permute_dims, counted from the front."""
    rank = len(shape_of(call))
    axes = call.attrs.axes
    return list(range(rank))[::-1] if axes is None else [int(axis) % rank for axis in axes]
