"""Padding, pools and resizing of images, and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import shape_of

__all__ = ["IMAGE"]


def _pad(mode: str) -> Callable[[fx.Node, Any], Expr]:
    def convert(node: fx.Node, importer: Any) -> Expr:
        x = importer.env[node.args[0]]
        pads = [int(size) for size in node.args[1]]
        rank = len(shape_of(x))
        width = [0] * (2 * rank)
        # Torch lists (before, after) from the last axis backwards.
        for index in range(len(pads) // 2):
            axis = rank - 1 - index
            width[2 * axis : 2 * axis + 2] = pads[2 * index : 2 * index + 2]
        return importer.block_builder.emit(relax.op.nn.pad(x, width, pad_mode=mode))

    return convert


def _reduce(reduce: Callable[..., Expr]) -> Callable[[fx.Node, Any], Expr]:
    def convert(node: fx.Node, importer: Any) -> Expr:
        arguments = dict(zip(("self", "dim", "keepdim"), node.args, strict=False)) | node.kwargs
        dims = arguments.get("dim") or None
        dims = [dims] if isinstance(dims, int) else dims
        x = importer.env[arguments["self"]]
        keep = bool(arguments.get("keepdim", False))
        return importer.block_builder.emit(reduce(x, axis=dims, keepdims=keep))

    return convert


def _adaptive_max_pool2d(node: fx.Node, importer: Any) -> Expr:
    x = importer.env[node.args[0]]
    size, target = shape_of(x)[2:], [int(length) for length in node.args[1]]
    if len(size) != 2 or any(have % want for have, want in zip(size, target, strict=True)):
        raise NotImplementedError(
            f"adaptive_max_pool2d of {list(size)} to {target} has uneven windows"
        )
    window = tuple(have // want for have, want in zip(size, target, strict=True))
    pooled = importer.block_builder.emit(relax.op.nn.max_pool2d(x, window, strides=window))
    # The second result, the positions, is read by max unpooling alone.
    return relax.Tuple([pooled, importer.block_builder.emit(relax.op.zeros_like(pooled))])


def _upsample(
    method: str, coordinates: str, rounding: str = "round"
) -> Callable[[fx.Node, Any], Expr]:
    """Resizing as torch defines it: TVM's importer gives every method the coordinates of bilinear."""

    def convert(node: fx.Node, importer: Any) -> Expr:
        x_node, size, *corners, scales = node.args
        x = importer.env[x_node]
        align = bool(corners and corners[0])
        if size is None:
            size = [
                _whole_size(length, scale, align)
                for length, scale in zip(shape_of(x)[2:], scales, strict=True)
            ]
        return importer.block_builder.emit(
            relax.op.image.resize2d(
                x,
                tuple(int(length) for length in size),
                layout="NCHW",
                method=method,
                coordinate_transformation_mode="align_corners" if align else coordinates,
                rounding_method=rounding,
            )
        )

    return convert


def _whole_size(length: int, scale: float, align: bool) -> int:
    size = int(length * scale)
    # Torch then takes its coordinates from the factor, the graph from the two lengths.
    if size != length * scale and not align:
        raise NotImplementedError(
            f"scale {scale:g} of length {length} is no whole length; pass size= or recompute_scale_factor=True"
        )
    return size


IMAGE: dict[str, Callable[[fx.Node, Any], Expr]] = {
    "adaptive_max_pool2d.default": _adaptive_max_pool2d,
    "amax.default": _reduce(relax.op.max),
    "amin.default": _reduce(relax.op.min),
    "reflection_pad1d.default": _pad("reflect"),
    "reflection_pad2d.default": _pad("reflect"),
    "replication_pad1d.default": _pad("replicate"),
    "replication_pad2d.default": _pad("replicate"),
    "upsample_bicubic2d.vec": _upsample("cubic", "half_pixel"),
    "upsample_bilinear2d.vec": _upsample("linear", "half_pixel"),
    "upsample_nearest2d.vec": _upsample("nearest_neighbor", "asymmetric", "floor"),
    "_upsample_nearest_exact2d.vec": _upsample(
        "nearest_neighbor", "half_pixel", "round_prefer_ceil"
    ),
}
