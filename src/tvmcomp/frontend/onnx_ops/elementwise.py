"""Operators that work on each element by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype
from tvm import relax, te, tirx
from tvm.ir import Expr

from tvmcomp.frontend.block import shape_of
from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["ELEMENTWISE"]

_LARGEST_EXPONENT = 63


def _clip(node: OnnxNode) -> Expr | None:
    """clip(x, low, high); a bound that is missing or NaN does not bound."""
    if not node.dtype.startswith("float"):
        return _clip_integers(node)
    bounds = []
    for index, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        array = node.value(index)
        if node.get(index) is not None and array is None:
            return _clip_computed(node)
        value = float(node.attrs.get(name, default)) if array is None else float(array.reshape(()))
        bounds.append(default if math.isnan(value) else value)
    return relax.op.clip(node.x, *bounds)


def _clip_integers(node: OnnxNode) -> Expr:
    """Bounds stay integers: float32 does not hold them all."""
    return _clip_computed(node)


def _clip_computed(node: OnnxNode) -> Expr:
    """minimum(maximum(x, low), high)"""
    y = node.x
    low, high = node.get(1), node.get(2)
    if low is not None:
        y = node.emit(relax.op.maximum(y, low))
    return y if high is None else relax.op.minimum(y, high)


def _chain(combine: Callable[[Expr, Expr], Expr]) -> Converter:
    """An operator of any number of operands, two at a time."""

    def convert(node: OnnxNode) -> Expr | None:
        return reduce(combine, node.operands)

    return convert


def _mean(node: OnnxNode) -> Expr:
    total = reduce(relax.op.add, node.operands)
    return relax.op.divide(total, relax.const(len(node.operands), node.dtype))


def _pow(node: OnnxNode) -> Expr | None:
    """The result has the base's type; the exponent may have another."""
    base, exponent = node.x, node[1]
    kind, other = node.dtype, str(exponent.ty.dtype)
    if kind == other and kind.startswith("float"):
        return relax.op.power(base, exponent)
    if kind.startswith("float"):
        return relax.op.power(base, relax.op.astype(exponent, kind))
    if other.startswith("float"):
        wide = "float64" if kind in ("int64", "uint64") or other == "float64" else "float32"
        y = relax.op.power(relax.op.astype(base, wide), relax.op.astype(exponent, wide))
        return relax.op.astype(y, kind)
    return _integer_power(node, base, relax.op.astype(exponent, kind))


def _integer_power(node: OnnxNode, base: Expr, exponent: Expr) -> Expr:
    """By squaring, modulo the type's range; a negative exponent gives 0 unless the base is 1 or -1."""
    kind = node.dtype
    one, zero = relax.const(1, kind), relax.const(0, kind)
    two = relax.const(2, kind)
    # An exponent above the largest has a result that overflows, or is 1 or -1 by its parity.
    parity = node.emit(relax.op.floor_mod(exponent, two))
    large = relax.op.add(relax.const(_LARGEST_EXPONENT - 1, kind), parity)
    limit = relax.const(_LARGEST_EXPONENT, kind)
    left = node.emit(relax.op.where(relax.op.greater(exponent, limit), large, exponent))
    result, square = relax.op.where(relax.op.less(exponent, zero), zero, one), base
    result = node.emit(result)
    for _ in range(_LARGEST_EXPONENT.bit_length()):
        odd = relax.op.greater(relax.op.floor_mod(left, two), zero)
        result = node.emit(relax.op.where(odd, relax.op.multiply(result, square), result))
        square = node.emit(relax.op.multiply(square, square))
        left = node.emit(relax.op.floor_divide(left, two))
    if kind.startswith("uint"):
        return result
    negative = relax.op.less(exponent, zero)
    odd = relax.op.not_equal(parity, zero)
    unit = relax.op.equal(relax.op.multiply(base, base), one)
    inverse = relax.op.where(odd, base, one)
    return relax.op.where(relax.op.logical_and(negative, unit), inverse, result)


def _mod(node: OnnxNode) -> Expr | None:
    """Floats without `fmod`: the remainder has the divisor's sign, a zero too."""
    kind = node.dtype
    if node.number("fmod", 0) or not kind.startswith("float"):
        return None
    x, y = node[0], node[1]
    zero = relax.const(0, kind)
    rest = node.emit(relax.op.mod(x, y))
    below = relax.op.less(y, zero)
    opposite = relax.op.logical_xor(relax.op.less(rest, zero), below)
    signed = relax.op.where(opposite, relax.op.add(rest, y), rest)
    nothing = relax.op.where(below, relax.const(-0.0, kind), zero)
    return relax.op.where(relax.op.equal(rest, zero), nothing, signed)


def _broadcast(node: OnnxNode) -> list[Expr]:
    """Both operands in the result's shape."""
    shape = np.broadcast_shapes(shape_of(node[0]), shape_of(node[1]))
    return [
        operand if shape_of(operand) == shape else node.emit(relax.op.broadcast_to(operand, shape))
        for operand in (node[0], node[1])
    ]


def _bit_shift(node: OnnxNode) -> Expr:
    """A shift by the width or more, or by less than 0, leaves nothing but the sign."""
    kind = node.dtype
    width = int(np.dtype(kind).itemsize) * 8
    left = node.text("direction", "") == "LEFT"

    def shift(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        def element(*index: tirx.Var) -> tirx.PrimExpr:
            a, b = x(*index), y(*index)
            # As int64, where what is too large for it is negative: TVM cannot simplify unsigned bounds.
            wide = b.astype("int64")
            within = tirx.all(wide >= 0, wide < width)
            by = tirx.if_then_else(within, b, tirx.const(width - 1, kind))
            if left:
                return tirx.if_then_else(within, a << by, tirx.const(0, kind))
            emptied = tirx.const(0, kind) if kind.startswith("uint") else a >> by
            return tirx.if_then_else(within, a >> by, emptied)

        return te.compute(x.shape, element, "shift")

    return node.compute(shift, *_broadcast(node))


def _bit_cast(node: OnnxNode) -> Expr:
    """The same bits as another type of the same width."""
    target = str(tensor_dtype_to_np_dtype(node.number("to", 0)))
    if target == node.dtype:
        return node.x
    if "bool" in (target, node.dtype):
        # A bool is stored as one byte that is 0 or 1.
        return relax.op.astype(node.x, target)

    def cast(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *i: tirx.reinterpret(target, x(*i)), "bits")

    return node.compute(cast, node.x)


def _is_inf(node: OnnxNode) -> Expr:
    infinity = relax.const(math.inf, node.dtype)
    above = relax.op.equal(node.x, infinity)
    below = relax.op.equal(node.x, relax.op.negative(infinity))
    signs = node.number("detect_positive", 1), node.number("detect_negative", 1)
    if signs == (1, 1):
        return relax.op.logical_or(above, below)
    if signs == (0, 0):
        return relax.const(np.zeros(node.shape, bool))
    return above if signs[0] else below


def _elu(node: OnnxNode) -> Expr:
    """x above 0, alpha * (exp(x) - 1) below."""
    zero, one = relax.const(0, node.dtype), relax.const(1, node.dtype)
    alpha = relax.const(node.real("alpha", 1.0), node.dtype)
    below = relax.op.subtract(relax.op.exp(relax.op.minimum(node.x, zero)), one)
    return relax.op.add(relax.op.nn.relu(node.x), relax.op.multiply(alpha, below))


def _celu(node: OnnxNode) -> Expr:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))"""
    zero, one = relax.const(0, node.dtype), relax.const(1, node.dtype)
    alpha = relax.const(node.real("alpha", 1.0), node.dtype)
    power = relax.op.exp(relax.op.divide(relax.op.minimum(node.x, zero), alpha))
    below = relax.op.multiply(alpha, relax.op.subtract(power, one))
    return relax.op.add(relax.op.nn.relu(node.x), below)


def _dropout(node: OnnxNode) -> Expr:
    """Nothing is dropped in inference; the mask says so."""
    training = node.setting(2, "training_mode")
    if training is not None and training.all():
        raise ValueError("training_mode is set; export the model in evaluation mode")
    if node.outputs == 1:
        return node.x
    return relax.Tuple([node.x, relax.const(np.ones(node.shape, bool))])


ELEMENTWISE: dict[str, Converter] = {
    "BitCast": _bit_cast,
    "BitShift": _bit_shift,
    "Celu": _celu,
    "Clip": _clip,
    "Dropout": _dropout,
    "Elu": _elu,
    "IsInf": _is_inf,
    "Max": _chain(relax.op.maximum),
    "Mean": _mean,
    "Min": _chain(relax.op.minimum),
    "Mod": _mod,
    "Pow": _pow,
    "Sum": _chain(relax.op.add),
}
