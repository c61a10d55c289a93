"""Converters of our own for ONNX operators that TVM's importer turns into opaque code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import as_array, shape_of

__all__ = ["CONVERTERS"]

Converter = Callable[[Sequence[Expr | None], Mapping[str, Any]], Expr | None]

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _clip(inputs: Sequence[Expr | None], attrs: Mapping[str, Any]) -> Expr | None:
    """clip(x, low, high); a bound that is missing or NaN does not bound."""
    bounds = []
    for index, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        operand = inputs[index] if index < len(inputs) else None
        array = None if operand is None else as_array(operand)
        if operand is not None and array is None:
            return None
        value = float(attrs.get(name, default)) if array is None else float(array.reshape(()))
        bounds.append(default if math.isnan(value) else value)
    return relax.op.clip(inputs[0], *bounds)


def _pad(inputs: Sequence[Expr | None], attrs: Mapping[str, Any]) -> Expr | None:
    """nn.pad with all operands but the first constant."""
    constants = [None if operand is None else as_array(operand) for operand in inputs[1:4]]
    constants += [None] * (3 - len(constants))
    pads = attrs.get("pads") if constants[0] is None else constants[0].tolist()
    if pads is None:
        return None
    value = float(attrs.get("value", 0.0) if constants[1] is None else constants[1].reshape(()))
    rank = len(shape_of(inputs[0]))
    axes = range(rank) if constants[2] is None else [int(axis) % rank for axis in constants[2]]
    width = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        width[2 * axis] = int(pads[index])
        width[2 * axis + 1] = int(pads[index + len(axes)])
    if min(width) < 0:
        return None
    mode = attrs.get("mode", b"constant").decode()
    return relax.op.nn.pad(inputs[0], width, pad_mode=_PAD_MODES[mode], pad_value=value)


CONVERTERS: dict[str, Converter] = {"Clip": _clip, "Pad": _pad}
