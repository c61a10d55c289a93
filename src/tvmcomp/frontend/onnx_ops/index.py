"""Gathers and scatters, one Relax call each: what indices mean is settled in `graph/safe_indices.py`."""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.indexing import check_constant, indexed
from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["INDEX"]

# ONNX's names for what becomes of the old value -> Relax's.
_REDUCTIONS = {"none": "update", "add": "add", "mul": "mul", "min": "min", "max": "max"}


def _checked(make: Callable[[OnnxNode], Expr]) -> Converter:
    """The call `make` gives, its constant indices checked here, where the node's name is known."""

    def convert(node: OnnxNode) -> Expr | None:
        if not all(isinstance(x.ty, relax.TensorType) for x in node.operands if x is not None):
            return None
        call = make(node)
        values = node.value(1)
        if values is not None:
            for use in indexed(call):
                check_constant("operand 1", use, values)
        return call

    return convert


def _axis(node: OnnxNode) -> int:
    axis, rank = int(node.attrs.get("axis", 0)), len(node.shape)
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} of a tensor of {rank} axes; use {-rank} to {rank - 1}")
    return axis % rank


def _reduction(node: OnnxNode) -> str:
    name = node.text("reduction", "none")
    if name not in _REDUCTIONS:
        raise ValueError(f"reduction {name!r} is unknown; use {', '.join(_REDUCTIONS)}")
    return _REDUCTIONS[name]


def _gather(node: OnnxNode) -> Expr:
    return relax.op.take(node.x, node[1], axis=_axis(node))


def _gather_elements(node: OnnxNode) -> Expr:
    return relax.op.gather_elements(node.x, node[1], axis=_axis(node))


def _gather_nd(node: OnnxNode) -> Expr:
    return relax.op.gather_nd(node.x, node[1], batch_dims=int(node.attrs.get("batch_dims", 0)))


def _scatter_elements(node: OnnxNode) -> Expr:
    axis = _axis(node)
    return relax.op.scatter_elements(node.x, node[1], node[2], axis, _reduction(node))


def _scatter_nd(node: OnnxNode) -> Expr:
    return relax.op.scatter_nd(node.x, node[1], node[2], _reduction(node))


INDEX: dict[str, Converter] = {
    "Gather": _checked(_gather),
    "GatherElements": _checked(_gather_elements),
    "GatherND": _checked(_gather_nd),
    "Scatter": _checked(_scatter_elements),
    "ScatterElements": _checked(_scatter_elements),
    "ScatterND": _checked(_scatter_nd),
}
