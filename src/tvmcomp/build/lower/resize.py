"""Taps and weights of a 2-D resize, as the separable form `Resize` computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.graph.layers import Resize

__all__ = ["resize_layer"]

_ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    # As TVM: a position a rounding error below an integer is that integer.
    "floor": lambda position: np.floor(position + 1e-5),
    "ceil": np.ceil,
    "round_prefer_floor": lambda position: np.ceil(position - 0.5),
    "round_prefer_ceil": lambda position: np.floor(position + 0.5),
    "round": np.rint,
}


def resize_layer(flow: Flow, node: Node, source: str, output: str) -> Resize | None:
    """image.resize2d (NHWC, nearest or linear)  ->  Resize; None for cubic, cropping or unknown rounding."""
    attrs = node.value.attrs
    if attrs.layout != "NHWC" or attrs.method not in ("nearest_neighbor", "linear"):
        return None
    axes = []
    for length_in, length_out in zip(flow.shape(source)[1:3], node.shape[1:3], strict=True):
        taps = _taps(
            length_in,
            length_out,
            str(attrs.method),
            str(attrs.coordinate_transformation_mode),
            str(attrs.rounding_method),
        )
        if taps is None:
            return None
        axes.append(taps)
    (index_h, weight_h), (index_w, weight_w) = axes
    return Resize(
        name=node.name,
        inputs=(source,),
        output=output,
        index_h=index_h,
        weight_h=weight_h,
        index_w=index_w,
        weight_w=weight_w,
    )


def _taps(
    length_in: int, length_out: int, method: str, coordinates: str, rounding: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """index int32 [out, taps] and weight float32 [out, taps] along one axis (ONNX Resize's definitions)."""
    out = np.arange(length_out, dtype=np.float64)
    scale = length_in / length_out
    if coordinates == "align_corners":
        position = out * ((length_in - 1) / max(length_out - 1, 1))
    elif coordinates == "asymmetric":
        position = out * scale
    elif coordinates in ("half_pixel", "pytorch_half_pixel"):
        position = (out + 0.5) * scale - 0.5
        if coordinates == "pytorch_half_pixel" and length_out == 1:
            position = np.zeros_like(out)
    else:
        return None
    if method == "nearest_neighbor":
        # TVM leaves the rounding empty where the coordinates decide it.
        default = "round" if coordinates == "align_corners" else "floor"
        index = _ROUNDING[rounding or default](position)
        index = np.clip(index, 0, length_in - 1).astype(np.int32)[:, None]
        return index, np.ones_like(index, np.float32)
    position = np.clip(position, 0, length_in - 1)
    low = np.floor(position).astype(np.int32)
    high = np.minimum(low + 1, length_in - 1)
    fraction = (position - low).astype(np.float32)
    return np.stack([low, high], 1), np.stack([np.float32(1) - fraction, fraction], 1)
