"""Running sums and products."""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["SCAN"]


def _running(combine: Callable[[Expr, Expr], Expr], neutral: int) -> Converter:
    """y[i] = x[0] o ... o x[i]; in log2(n) steps, each combining with what lies 1, 2, 4, ... before."""

    def convert(node: OnnxNode) -> Expr:
        stored = node.setting(1, "axis")
        axis = 0 if stored is None else int(stored.reshape(()))
        axis %= len(node.shape)
        length = node.shape[axis]
        backwards = node.number("reverse", 0) != 0
        y = node.x
        if node.number("exclusive", 0):
            y = _moved(node, y, axis, 1, neutral, backwards)
        distance = 1
        while distance < length:
            y = node.emit(combine(y, _moved(node, y, axis, distance, neutral, backwards)))
            distance *= 2
        return y

    return convert


def _moved(node: OnnxNode, x: Expr, axis: int, distance: int, fill: int, backwards: bool) -> Expr:
    """x moved along an axis, `fill` in the places that become free."""
    rank, length = len(node.shape), node.shape[axis]
    if distance >= length:
        return node.emit(relax.op.full_like(x, relax.const(fill, node.dtype)))
    width = [0] * (2 * rank)
    width[2 * axis + (1 if backwards else 0)] = distance
    first = distance if backwards else 0
    kept = node.emit(relax.op.strided_slice(x, [axis], [first], [first + length - distance]))
    return node.emit(relax.op.nn.pad(kept, width, pad_value=fill))


SCAN: dict[str, Converter] = {
    "CumProd": _running(relax.op.multiply, 1),
    "CumSum": _running(relax.op.add, 0),
}
