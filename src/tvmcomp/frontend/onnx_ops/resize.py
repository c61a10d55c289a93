"""Resize and Upsample: every mode as taps, sums of gathers along one axis at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import shape_of
from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["RESIZE"]

# What `image.resize2d` means the same by, where a factor gives whole sizes; it has integer kernels.
_SHARED_COORDINATES = ("half_pixel", "asymmetric", "align_corners")

# Of an axis's length: a few roundings of float32, with room.
_POSITION_ERROR = 5e-7


@dataclass(frozen=True)
class _Axis:
    """One resized axis: lengths, scale = out / in before rounding, and the region of interest."""

    axis: int
    length: int
    out: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def _resize(node: OnnxNode) -> Expr:
    """y[o] = sum_t weight[o, t] * x[index[o, t]] along each resized axis."""
    axes = _axes(node)
    mode = node.text("mode", "nearest")
    simple = _resize2d(node, axes, mode)
    if simple is not None:
        return simple
    floating = node.dtype.startswith("float")
    y = node.x
    outside: list[np.ndarray] = []
    rank = len(node.shape)
    for axis in axes:
        x = _coordinates(node, axis)
        if _crops(node):
            beyond = (x < 0) | (x > axis.length - 1)
            outside.append(beyond.reshape([-1, *[1] * (rank - 1 - axis.axis)]))
        if mode == "nearest":
            index = _ROUNDING[_rounding(node)](x)
            index = np.clip(index, 0, axis.length - 1).astype(np.int64)
            y = node.emit(relax.op.take(y, relax.const(index), axis=axis.axis))
        else:
            index, weight = _taps(node, axis, x, mode)
            y = _weighted(node, y, axis.axis, index, weight)
    if not floating and mode != "nearest":
        y = node.emit(relax.op.astype(y, node.dtype))
    if any(mask.any() for mask in outside):
        value = relax.const(node.real("extrapolation_value", 0.0), node.dtype)
        mask = outside[0]
        for other in outside[1:]:
            mask = mask | other
        y = relax.op.where(relax.const(mask), value, y)
    return y


def _crops(node: OnnxNode) -> bool:
    return node.text("coordinate_transformation_mode", "") == "tf_crop_and_resize"


def _operand(node: OnnxNode, index: int, name: str) -> np.ndarray | None:
    """A stored operand; one without elements counts as left out."""
    value = node.setting(index, name)
    return None if value is None or value.size == 0 else value


def _axes(node: OnnxNode) -> list[_Axis]:
    """The axes whose length changes or that are read in parts, with their scales."""
    rank = len(node.shape)
    if _is_old(node):
        roi, sizes = None, None
        scales = _operand(node, 1, "scales")
        if scales is None and "scales" in node.attrs:
            scales = np.asarray(node.attrs["scales"], np.float32)
    else:
        roi, scales, sizes = (
            _operand(node, index, name) for index, name in ((1, "roi"), (2, "scales"), (3, "sizes"))
        )
    axes = [int(axis) % rank for axis in node.attrs.get("axes", range(rank))]
    if scales is None and sizes is None:
        raise ValueError("scales and sizes are missing")
    lengths = [node.shape[axis] for axis in axes]
    if sizes is not None:
        wanted = [int(size) for size in sizes.reshape(-1)]
        factors, outs = _kept_aspect(node, lengths, wanted)
    else:
        assert scales is not None
        factors = [float(scale) for scale in scales.reshape(-1)]
        outs = [math.floor(n * np.float32(s)) for n, s in zip(lengths, factors, strict=True)]
        if roi is not None and _crops(node):
            outs = _roi_sizes(roi, lengths, factors)
    found = []
    for place, (axis, length, out, factor) in enumerate(
        zip(axes, lengths, outs, factors, strict=True)
    ):
        start, end = 0.0, 1.0
        if roi is not None and _crops(node):
            edges = roi.reshape(-1)
            start, end = float(edges[place]), float(edges[place + len(axes)])
        if out != length or factor != 1.0 or (start, end) != (0.0, 1.0):
            found.append(_Axis(axis, length, out, factor, start, end))
    return found


def _roi_sizes(roi: np.ndarray, lengths: list[int], factors: list[float]) -> list[int]:
    edges = roi.reshape(-1)
    count = len(lengths)
    return [
        math.floor(n * (float(edges[i + count]) - float(edges[i])) * s)
        for i, (n, s) in enumerate(zip(lengths, factors, strict=True))
    ]


def _kept_aspect(
    node: OnnxNode, lengths: list[int], wanted: list[int]
) -> tuple[list[float], list[int]]:
    """(scales, sizes) for wanted sizes under the policy on aspect ratios."""
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    factors = [want / length for want, length in zip(wanted, lengths, strict=True)]
    if policy == "stretch":
        return factors, wanted
    factor = min(factors) if policy == "not_larger" else max(factors)
    # Half up, as the standard's rounding of sizes.
    return [factor] * len(lengths), [math.floor(factor * length + 0.5) for length in lengths]


def _resize2d(node: OnnxNode, axes: list[_Axis], mode: str) -> Expr | None:
    """image.resize2d where it means the same, by its positions: rank 4, factors that give whole sizes."""
    coordinates = node.text("coordinate_transformation_mode", "half_pixel")
    if _is_old(node):
        coordinates = "asymmetric"
    known = coordinates in _SHARED_COORDINATES and not node.number("antialias", 0)
    if len(node.shape) != 4 or not known or not {axis.axis for axis in axes} <= {2, 3}:
        return None
    if not node.dtype.startswith("float") or any(a.out != a.length * a.scale for a in axes):
        return None
    size = list(node.shape[2:])
    for axis in axes:
        size[axis.axis - 2] = axis.out
    rounding = _rounding(node)
    if mode == "nearest":
        if coordinates == "align_corners":
            return None
        for axis in axes:
            wanted = np.clip(_ROUNDING[rounding](_coordinates(node, axis)), 0, axis.length - 1)
            # Its float32 positions may lie on either side of what these are.
            for error in (-_POSITION_ERROR, _POSITION_ERROR):
                if not np.array_equal(wanted, _nearest2d(axis, coordinates, rounding, error)):
                    return None
    elif mode not in ("linear", "bilinear") or (coordinates == "align_corners" and min(size) == 1):
        return None
    return relax.op.image.resize2d(
        node.x,
        tuple(size),
        layout="NCHW",
        method="nearest_neighbor" if mode == "nearest" else "linear",
        coordinate_transformation_mode=coordinates,
        rounding_method=rounding if mode == "nearest" else "round",
    )


def _nearest2d(axis: _Axis, coordinates: str, rounding: str, error: float) -> np.ndarray:
    """The indices `image.resize2d` takes: it rounds down a hundred thousandth later."""
    o = np.arange(axis.out, dtype=np.float64)
    scale = axis.length / axis.out
    x = o * scale if coordinates == "asymmetric" else (o + 0.5) * scale - 0.5
    x = x + error * axis.length + (1e-5 if rounding == "floor" else 0.0)
    return np.clip(_ROUNDING[rounding](x), 0, axis.length - 1)


def _coordinates(node: OnnxNode, axis: _Axis) -> np.ndarray:
    """Where each output element lies in the input, in float32 as runtimes compute it."""
    o = np.arange(axis.out, dtype=np.float32)
    scale = np.float32(axis.scale)
    mode = node.text("coordinate_transformation_mode", "half_pixel")
    if _is_old(node):
        mode = "asymmetric"
    length, out = np.float32(axis.length), np.float32(axis.out)
    half = np.float32(0.5)
    if mode == "asymmetric":
        return o / scale
    if mode == "align_corners":
        return np.zeros_like(o) if axis.out == 1 else o * (length - 1) / (out - 1)
    if mode == "pytorch_half_pixel":
        return (o + half) / scale - half if axis.out > 1 else np.zeros_like(o)
    if mode == "half_pixel_symmetric":
        # The centre of the output lies on the centre of the input, though sizes were rounded.
        adjustment = out / (scale * length)
        centre = length / 2
        return centre * (1 - adjustment) + (o + half) / scale - half
    if mode == "tf_crop_and_resize":
        first = np.float32(axis.start) * (length - 1)
        if axis.out == 1:
            return np.full_like(o, half * (axis.start + axis.end) * (length - 1))
        return first + o * np.float32(axis.end - axis.start) * (length - 1) / (out - 1)
    if mode == "half_pixel":
        return (o + half) / scale - half
    raise ValueError(f"coordinate_transformation_mode {mode} is not known")


_ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda v: np.ceil(v - np.float32(0.5)),
    "round_prefer_ceil": lambda v: np.floor(v + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _rounding(node: OnnxNode) -> str:
    if _is_old(node):
        return "floor"
    return node.text("nearest_mode", "round_prefer_floor")


def _is_old(node: OnnxNode) -> bool:
    """Upsample, and Resize of opset 10: asymmetric, and nearest rounds down."""
    return node.op == "Upsample" or node.opset < 11


def _taps(node: OnnxNode, axis: _Axis, x: np.ndarray, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """(index, weight), each [out, taps]; the border repeats unless it is excluded."""
    shrink = min(1.0, axis.scale) if node.number("antialias", 0) else 1.0
    if mode not in ("linear", "bilinear", "cubic"):
        raise ValueError(f"mode {mode} is not known")
    reach = (2.0 if mode == "cubic" else 1.0) / shrink
    base = np.floor(x.astype(np.float64)).astype(np.int64)
    offsets = np.arange(-math.ceil(reach) + 1, math.ceil(reach) + 1)
    index = base[:, None] + offsets
    distance = np.abs(index - x[:, None].astype(np.float64)) * shrink
    cubic = mode == "cubic"
    a = node.real("cubic_coeff_a", -0.75)
    weight = _cubic(distance, a) if cubic else np.maximum(1.0 - distance, 0.0)
    if node.number("exclude_outside", 0):
        weight = np.where((index >= 0) & (index < axis.length), weight, 0.0)
    if node.number("exclude_outside", 0) or node.number("antialias", 0):
        weight = weight / weight.sum(axis=1, keepdims=True)
    index = np.clip(index, 0, axis.length - 1)
    used = (weight != 0).any(axis=0)
    return index[:, used], weight[:, used].astype(np.float32)


def _cubic(d: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel at distances d."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _weighted(node: OnnxNode, x: Expr, axis: int, index: np.ndarray, weight: np.ndarray) -> Expr:
    """sum_t weight[:, t] * x[index[:, t]] along an axis; integers are summed as float32."""
    kind = str(x.ty.dtype)
    kind = kind if kind.startswith("float") else "float32"
    x = x if str(x.ty.dtype) == kind else node.emit(relax.op.astype(x, kind))
    rank = len(shape_of(x))
    total: Expr | None = None
    for tap in range(index.shape[1]):
        part = relax.op.take(x, relax.const(np.ascontiguousarray(index[:, tap])), axis=axis)
        factor = weight[:, tap].astype(kind).reshape([-1, *[1] * (rank - 1 - axis)])
        part = node.emit(relax.op.multiply(node.emit(part), relax.const(factor, kind)))
        total = part if total is None else node.emit(relax.op.add(total, part))
    assert total is not None
    return total


RESIZE: dict[str, Converter] = {"Resize": _resize, "Upsample": _resize}
