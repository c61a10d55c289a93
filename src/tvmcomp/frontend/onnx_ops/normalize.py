"""Normalizations TVM's importer knows in part: several results, statistics that are data, norms of zero."""

from __future__ import annotations

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import shape_of
from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["NORMALIZE"]


def _layer_normalization(node: OnnxNode) -> Expr:
    """(y, mean, 1 / deviation) over the axes from `axis` on; the last two only where the node names them."""
    rank = len(node.shape)
    first = node.number("axis", -1) % rank
    axes = list(range(first, rank))
    epsilon = node.real("epsilon", 1e-5)
    tail = node.shape[first:]
    scale = _fitted(node, node[1], tail)
    bias = node.get(2)
    shift = relax.const(np.zeros(tail, node.dtype)) if bias is None else _fitted(node, bias, tail)
    y = relax.op.nn.layer_norm(node.x, scale, shift, axes=axes, epsilon=epsilon)
    if node.outputs == 1:
        return y
    stash = str(tensor_dtype_to_np_dtype(node.number("stash_type", 1)))
    x = node.x if stash == node.dtype else node.emit(relax.op.astype(node.x, stash))
    mean = node.emit(relax.op.mean(x, axis=axes, keepdims=True))
    centred = node.emit(relax.op.subtract(x, mean))
    variance = relax.op.mean(relax.op.multiply(centred, centred), axis=axes, keepdims=True)
    inverse = relax.op.rsqrt(relax.op.add(variance, relax.const(epsilon, stash)))
    return relax.Tuple([node.emit(y), mean, node.emit(inverse)][: node.outputs])


def _fitted(node: OnnxNode, x: Expr, shape: tuple[int, ...]) -> Expr:
    if shape_of(x) == shape:
        return x
    return node.emit(relax.op.broadcast_to(x, shape))


def _rms_normalization(node: OnnxNode) -> Expr | None:
    """x / sqrt(mean(x * x) + epsilon) * scale, where the mean is over all axes."""
    rank = len(node.shape)
    if node.number("axis", -1) % rank != 0:
        return None
    stash = str(tensor_dtype_to_np_dtype(node.number("stash_type", 1)))
    x = node.x if stash == node.dtype else node.emit(relax.op.astype(node.x, stash))
    square = relax.op.mean(relax.op.multiply(x, x), axis=list(range(rank)), keepdims=True)
    inverse = relax.op.rsqrt(relax.op.add(square, relax.const(node.real("epsilon", 1e-5), stash)))
    y = node.emit(relax.op.multiply(x, inverse))
    y = y if stash == node.dtype else node.emit(relax.op.astype(y, node.dtype))
    return relax.op.multiply(y, node[1])


def _batch_normalization(node: OnnxNode) -> Expr | None:
    """Arithmetic, where the statistics are data; with stored ones it folds into its neighbours."""
    if all(node.value(index) is not None for index in (3, 4)):
        return None
    if node.number("training_mode", 0):
        raise ValueError("training_mode is set; export the model in evaluation mode")
    rank = len(node.shape)

    def channel(index: int) -> Expr:
        return node.emit(relax.op.reshape(node[index], [-1, *[1] * (rank - 2)]))

    epsilon = relax.const(node.real("epsilon", 1e-5), node.dtype)
    scale, bias, mean, variance = (channel(index) for index in (1, 2, 3, 4))
    factor = relax.op.multiply(scale, relax.op.rsqrt(relax.op.add(variance, epsilon)))
    centred = relax.op.subtract(node.x, mean)
    return relax.op.add(relax.op.multiply(centred, node.emit(factor)), bias)


def _lp_normalization(node: OnnxNode) -> Expr:
    """x / norm(x) along an axis; zeros stay zeros."""
    axis, order = node.number("axis", -1), node.number("p", 2)
    if order == 1:
        norm = relax.op.sum(relax.op.abs(node.x), axis=axis, keepdims=True)
    else:
        norm = relax.op.sqrt(
            relax.op.sum(relax.op.multiply(node.x, node.x), axis=axis, keepdims=True)
        )
    norm = node.emit(norm)
    zero, one = relax.const(0, node.dtype), relax.const(1, node.dtype)
    divisor = relax.op.where(relax.op.equal(norm, zero), one, norm)
    return relax.op.divide(node.x, divisor)


def _reduce_bool(node: OnnxNode) -> Expr | None:
    """Any and all: the largest and the smallest of booleans."""
    if node.dtype != "bool":
        return None
    axes = node.ints(1, "axes")
    if not axes and node.number("noop_with_empty_axes", 0):
        return node.x
    numbers = node.emit(relax.op.astype(node.x, "int8"))
    reduce = relax.op.max if node.op == "ReduceMax" else relax.op.min
    y = reduce(numbers, axis=axes or None, keepdims=node.number("keepdims", 1) != 0)
    return relax.op.astype(y, "bool")


def _global_lp(node: OnnxNode) -> Expr:
    order = node.number("p", 2)
    axes = list(range(2, len(node.shape)))
    power = relax.const(float(order), node.dtype)
    total = relax.op.sum(relax.op.power(relax.op.abs(node.x), power), axis=axes, keepdims=True)
    return relax.op.power(total, relax.const(1.0 / order, node.dtype))


NORMALIZE: dict[str, Converter] = {
    "BatchNormalization": _batch_normalization,
    "GlobalLpPool": _global_lp,
    "LayerNormalization": _layer_normalization,
    "LpNormalization": _lp_normalization,
    "RMSNormalization": _rms_normalization,
    "ReduceMax": _reduce_bool,
    "ReduceMin": _reduce_bool,
}
