"""Slices and pads on codes."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.compress.reference import code_range
from tvmcomp.graph.layers import Pad, Slice, TensorSpec

__all__ = ["pad_layer", "slice_layer"]


def slice_layer(flow: Flow, root: Node, source: str, output: str) -> Slice | None:
    """strided_slice  ->  Slice; None for bounds that are not known."""
    shape = flow.shape(source)
    parts = [_integers(arg) for arg in root.args[1:]]
    if any(part is None for part in parts):
        return None
    axes, begin, _, *rest = [part for part in parts if part is not None]
    steps = rest[0] if rest else [1] * len(axes)
    first, strides = [0] * len(shape), [1] * len(shape)
    for axis, start, step in zip(axes, begin, steps, strict=True):
        length = shape[axis]
        start = start + length if start < 0 else start
        first[axis] = min(max(start, 0), length if step > 0 else length - 1)
        strides[axis] = step
    if 0 in root.shape:
        return None
    return Slice(
        name=root.name,
        inputs=(source,),
        output=output,
        begin=tuple(first),
        strides=tuple(strides),
    )


def pad_layer(root: Node, source: str, spec: TensorSpec) -> Pad | None:
    """nn.pad by one number that is a code of y dequantized  ->  Pad; None for other modes, and where it crops."""
    attrs, x = root.value.attrs, spec.qparams
    widths = [int(width) for width in attrs.pad_width]
    if str(attrs.pad_mode) != "constant" or x is None or min(widths) < 0:
        return None
    fill, scale = np.float32(attrs.pad_value), np.float32(x.scale)
    if not np.isfinite(fill):
        return None
    steps = round(float(fill) / float(scale))
    code = steps + x.zero_point
    low, high = code_range(spec.dtype)
    if np.float32(steps) * scale != fill or not low <= code <= high:
        return None
    return Pad(
        name=root.name,
        inputs=(source,),
        output=spec.name,
        before=tuple(widths[::2]),
        value=code,
    )


def _integers(arg: relax.Expr) -> list[int] | None:
    fields = getattr(arg, "fields", None)
    if fields is None or any(not hasattr(item, "value") for item in fields):
        return None
    return [int(item.value) for item in fields]
