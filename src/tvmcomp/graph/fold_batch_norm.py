"""Batch normalisation folds into the weights before it, or becomes one multiply and one add."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.errors import ModelError
from tvmcomp.frontend.block import op_name, shape_of
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["FoldBatchNorm", "weight_prefix"]

# The axis of the weight that counts output channels, and the axis of the result they are on.
_CHANNEL_AXES = {"nn.conv2d": (0, 1), "nn.conv2d_transpose": (1, 1), "matmul": (1, -1)}


class FoldBatchNorm(Rewriter):
    """
    batch_norm(conv(x, w), ...)           ->  add(conv(x, w * s), t)            w.weight, w.bias
    batch_norm(add(conv(x, w), b), ...)   ->  add(conv(x, w * s), b * s + t)
    batch_norm(x, ...)                    ->  add(multiply(x, s), t)            bn.scale, bn.shift

    with s = gamma / sqrt(var + epsilon), t = beta - mean * s, computed in float64. `matmul` likewise.
    A convolution whose result is read elsewhere too keeps its weights.
    """

    STARTS_FROM = frozenset({"nn.batch_norm"})

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        if op_name(call) != "nn.batch_norm":
            return None
        x = call.args[0]
        scale, shift = self._affine(call)
        producer = self._producer(x)
        axis = int(call.attrs.axis) % len(shape_of(x))
        if producer is None or producer.axis != axis:
            result = self._multiply_add(call, axis, scale, shift)
        else:
            result = self._fold(producer, scale, shift)
        return relax.Tuple([self.emit(result), call.args[3], call.args[4]])

    def _affine(self, call: relax.Call) -> tuple[np.ndarray, np.ndarray]:
        values = [self.value(arg) for arg in call.args[1:5]]
        if call.attrs.training or any(value is None for value in values):
            raise ModelError(
                "a batch normalisation computes its statistics from its input; "
                "export the model in evaluation mode"
            )
        gamma, beta, mean, var = (np.asarray(value, np.float64) for value in values)
        spread = var + float(call.attrs.epsilon)
        if not (spread > 0).all():
            raise ModelError(
                f"batch normalisation parameter {call.args[4].name} holds a variance of {var.min():g}, "
                f"which with epsilon {float(call.attrs.epsilon):g} is not positive; "
                "train it again or export an earlier state"
            )
        scale = (gamma if call.attrs.scale else 1.0) / np.sqrt(spread)
        return scale, (beta if call.attrs.center else 0.0) - mean * scale

    def _producer(self, x: Expr) -> _Producer | None:
        bias = np.zeros(1)
        bias_var = None
        added = self.definition(x, "add")
        if added is not None and self.uses(x) == 1:
            array = self.value(added.args[1])
            if array is None:
                return None
            x, bias, bias_var = added.args[0], array, added.args[1]
        for op, (weight_axis, out_axis) in _CHANNEL_AXES.items():
            call = self.definition(x, op)
            if call is None or self.uses(x) != 1:
                continue
            weight = self.value(call.args[1])
            if weight is None or weight.ndim <= weight_axis:
                return None
            channels = weight.shape[weight_axis]
            if channels != shape_of(call)[out_axis]:
                # A transposed convolution in groups lists the channels of one group.
                return None
            if bias.size not in (1, channels):
                return None
            axis = out_axis % len(shape_of(x))
            return _Producer(call, weight, weight_axis, axis, bias.reshape(-1), bias_var)
        return None

    def _fold(self, producer: _Producer, scale: np.ndarray, shift: np.ndarray) -> Expr:
        call = producer.call
        dtype = producer.weight.dtype
        along = [1] * producer.weight.ndim
        along[producer.weight_axis] = -1
        weight_name = str(call.args[1].name)
        prefix = weight_prefix(weight_name)
        weight = self.param(weight_name, (producer.weight * scale.reshape(along)).astype(dtype))
        folded = relax.Call(call.op, [call.args[0], weight], call.attrs, call.ty_args)
        bias = np.broadcast_to(producer.bias * scale + shift, scale.shape)
        shape = [1] * len(shape_of(call))
        shape[producer.axis] = -1
        known = producer.bias_var
        bias_name = str(known.name) if isinstance(known, relax.Var) else f"{prefix}.bias"
        return relax.op.add(
            self.emit(folded), self.param(bias_name, bias.astype(dtype).reshape(shape))
        )

    def _multiply_add(
        self, call: relax.Call, axis: int, scale: np.ndarray, shift: np.ndarray
    ) -> Expr:
        x = call.args[0]
        shape = [1] * len(shape_of(x))
        shape[axis] = -1
        gamma = call.args[1]
        prefix = weight_prefix(str(gamma.name)) if isinstance(gamma, relax.Var) else "batch_norm"
        dtype = str(x.ty.dtype)
        factor = self.param(f"{prefix}.scale", scale.astype(dtype).reshape(shape))
        offset = self.param(f"{prefix}.shift", shift.astype(dtype).reshape(shape))
        return relax.op.add(self.emit(relax.op.multiply(x, factor)), offset)


@dataclass(frozen=True, eq=False)
class _Producer:
    call: relax.Call
    weight: np.ndarray
    weight_axis: int
    axis: int
    bias: np.ndarray
    bias_var: Expr | None


def weight_prefix(name: str) -> str:
    """`layer1.0.conv1` of `layer1.0.conv1.weight`; a name without that ending is its own prefix."""
    return name.removesuffix(".weight").removesuffix("_weight")
