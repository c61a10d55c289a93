"""Operators that move elements or repeat them."""

from __future__ import annotations

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["SHAPE"]

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(node: OnnxNode) -> Expr | None:
    """nn.pad with all operands but the first constant."""
    pads = node.ints(1, "pads")
    if pads is None:
        return None
    fill, chosen = node.setting(2, "constant_value"), node.setting(3, "axes")
    value = float(node.attrs.get("value", 0.0) if fill is None else fill.reshape(()))
    rank = len(node.shape)
    axes = range(rank) if chosen is None else [int(axis) % rank for axis in chosen]
    width = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        width[2 * axis] = pads[index]
        width[2 * axis + 1] = pads[index + len(axes)]
    mode = node.text("mode", "constant")
    _check_width(mode, node.shape, width)
    return relax.op.nn.pad(node.x, width, pad_mode=_PAD_MODES[mode], pad_value=value)


def _check_width(mode: str, shape: tuple[int, ...], width: list[int]) -> None:
    """A mode that repeats the tensor's own elements must not reach past them."""
    if mode == "constant":
        return
    for axis, length in enumerate(shape):
        longest = {"reflect": length - 1, "wrap": length}.get(mode, max(width))
        pads = width[2 * axis : 2 * axis + 2]
        if min(pads) < 0 or max(pads) > longest:
            raise ValueError(
                f"pads {pads} of an axis of length {length} in mode {mode}; use 0 to {longest}"
            )


def _tile(node: OnnxNode) -> Expr | None:
    repeats = node.ints(1, "repeats")
    return None if repeats is None else relax.op.tile(node.x, repeats)


SHAPE: dict[str, Converter] = {
    "Pad": _pad,
    "Tile": _tile,
}
