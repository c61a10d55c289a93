"""Converters of our own for ONNX operators that TVM's importer turns into opaque code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
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
    mode = attrs.get("mode", b"constant").decode()
    if min(width) < 0 and mode != "constant":
        return None
    return relax.op.nn.pad(inputs[0], width, pad_mode=_PAD_MODES[mode], pad_value=value)


def _tile(inputs: Sequence[Expr | None], attrs: Mapping[str, Any]) -> Expr | None:
    repeats = None if inputs[1] is None else as_array(inputs[1])
    return None if repeats is None else relax.op.tile(inputs[0], [int(n) for n in repeats])


def _chain(combine: Callable[[Expr, Expr], Expr]) -> Converter:
    """An operator of any number of operands, two at a time."""

    def convert(inputs: Sequence[Expr | None], attrs: Mapping[str, Any]) -> Expr | None:
        return reduce(combine, inputs)

    return convert


CONVERTERS: dict[str, Converter] = {
    "Clip": _clip,
    "Max": _chain(relax.op.maximum),
    "Min": _chain(relax.op.minimum),
    "Pad": _pad,
    "Sum": _chain(relax.op.add),
    "Tile": _tile,
}
