"""Which operands of a call are indices into which axes, and whether constant ones stay inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.errors import ModelError
from tvmcomp.frontend.block import op_name, shape_of

__all__ = ["Indexed", "check_constant", "indexed"]


@dataclass(frozen=True, eq=False)
class Indexed:
    """One integer operand that chooses elements.

    lengths: one number where every value runs along an axis of that length; one per last-axis
             component where each component has an axis of its own (gather_nd, scatter_nd).
    """

    indices: Expr
    lengths: tuple[int, ...]

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Those of `values` that are not in [-length, length - 1]."""
        lengths = np.array(self.lengths if len(self.lengths) > 1 else self.lengths[0], np.int64)
        return values[(values < -lengths) | (values >= lengths)]


def indexed(call: Expr) -> tuple[Indexed, ...]:
    """The index operands of a call; none for an operator without any."""
    find = _OPERATORS.get(op_name(call))
    return find(call) if find is not None else ()


def check_constant(what: str, use: Indexed, values: np.ndarray) -> None:
    """Raise ModelError if a constant index lies outside its axis."""
    outside = use.outside(values)
    if outside.size:
        lengths = " x ".join(map(str, use.lengths))
        lowest, highest = min(use.lengths), max(use.lengths)
        raise ModelError(
            f"{what}: index {outside.flat[0]} is outside an axis of length {lengths}; "
            f"use indices from {-lowest} to {highest - 1}"
        )


def _axis(call: relax.Call) -> int:
    rank = len(shape_of(call.args[0]))
    return int(call.attrs.axis) % max(rank, 1)


def _take(call: relax.Call) -> tuple[Indexed, ...]:
    data, indices = call.args
    if call.attrs.mode != "fast" or not isinstance(data.ty, relax.TensorType):
        return ()  # The other modes bound the index themselves.
    length = (
        int(np.prod(shape_of(data))) if call.attrs.axis is None else shape_of(data)[_axis(call)]
    )
    return (Indexed(indices, (length,)),)


def _along_axis(call: relax.Call) -> tuple[Indexed, ...]:
    return (Indexed(call.args[1], (shape_of(call.args[0])[_axis(call)],)),)


def _gather_nd(call: relax.Call) -> tuple[Indexed, ...]:
    first = int(call.attrs.batch_dims)
    return (_components(call, first),)


def _scatter_nd(call: relax.Call) -> tuple[Indexed, ...]:
    return (_components(call, 0),)


def _components(call: relax.Call, first: int) -> Indexed:
    data, indices = call.args[:2]
    count = shape_of(indices)[-1]
    return Indexed(indices, shape_of(data)[first : first + count])


def _one_per_axis(call: relax.Call) -> tuple[Indexed, ...]:
    data, indices = call.args[:2]
    fields = indices.fields if isinstance(indices, relax.Tuple) else ()
    return tuple(
        Indexed(field, (length,)) for field, length in zip(fields, shape_of(data), strict=False)
    )


_OPERATORS: dict[str, Callable[[relax.Call], tuple[Indexed, ...]]] = {
    "take": _take,
    "gather_elements": _along_axis,
    "gather_nd": _gather_nd,
    "index_tensor": _one_per_axis,
    "scatter_elements": _along_axis,
    "scatter_nd": _scatter_nd,
}
