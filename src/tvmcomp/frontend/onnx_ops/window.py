"""Operators over windows: max pooling with positions and its inverse, overlapping columns, space to depth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["WINDOW"]


def _max_pool(node: OnnxNode) -> Expr | None:
    """(largest, its place in the flat input) per window; without the second result TVM's importer serves."""
    if node.outputs == 1:
        return None
    spatial = node.shape[2:]
    rank = len(spatial)
    kernel = [int(size) for size in node.attrs["kernel_shape"]]
    strides = [int(size) for size in node.attrs.get("strides", [1] * rank)]
    dilations = [int(size) for size in node.attrs.get("dilations", [1] * rank)]
    pads = [int(size) for size in node.attrs.get("pads", [0] * (2 * rank))]
    up = node.number("ceil_mode", 0) != 0
    outs = [
        _pooled(length, kernel[a], strides[a], dilations[a], (pads[a], pads[a + rank]), up)
        for a, length in enumerate(spatial)
    ]
    columns = node.number("storage_order", 0) == 1

    def source(index: Sequence[tirx.Var], step: Sequence[tirx.IterVar]) -> list[tirx.PrimExpr]:
        return [index[2 + a] * strides[a] + step[a] * dilations[a] - pads[a] for a in range(rank)]

    def inside(place: Sequence[tirx.PrimExpr]) -> tirx.PrimExpr:
        return tirx.all(*(tirx.all(p >= 0, p < n) for p, n in zip(place, spatial, strict=True)))

    def flat(index: Sequence[tirx.Var], place: Sequence[tirx.PrimExpr]) -> tirx.PrimExpr:
        order = range(rank - 1, -1, -1) if columns else range(rank)
        offset = (index[0] * node.shape[1] + index[1]).astype("int64")
        for a in order:
            offset = offset * spatial[a] + place[a].astype("int64")
        return offset

    def pool(x: te.Tensor) -> list[te.Tensor]:
        lowest = tirx.min_value(node.dtype)
        window = [te.reduce_axis((0, size), f"k{a}") for a, size in enumerate(kernel)]

        def candidates(*index: tirx.Var) -> tuple[tirx.PrimExpr, tirx.PrimExpr]:
            place = source(index, window)
            clipped = [tirx.max(tirx.min(p, n - 1), 0) for p, n in zip(place, spatial, strict=True)]
            within = inside(place)
            at = tirx.if_then_else(within, flat(index, clipped), tirx.const(-1, "int64"))
            value = tirx.if_then_else(within, x(index[0], index[1], *clipped), lowest)
            return at, value

        def better(
            left: tuple[tirx.PrimExpr, tirx.PrimExpr], right: tuple[tirx.PrimExpr, tirx.PrimExpr]
        ) -> tuple[tirx.PrimExpr, tirx.PrimExpr]:
            # Of equal values the first; nothing yet has no place.
            keep = tirx.any(left[1] > right[1], tirx.all(left[1] == right[1], left[0] >= 0))
            return tirx.Select(keep, left[0], right[0]), tirx.Select(keep, left[1], right[1])

        largest = te.comm_reducer(
            better, lambda *_: (tirx.const(-1, "int64"), lowest), name="largest"
        )
        shape = (*node.shape[:2], *outs)
        places, values = te.compute(
            shape, lambda *index: largest(candidates(*index), axis=window), "pooled"
        )
        return [values, places]

    both = node.compute(pool, node.x)
    return relax.Tuple([node.emit(relax.TupleGetItem(both, index)) for index in range(2)])


def _pooled(
    length: int, window: int, stride: int, dilation: int, pads: tuple[int, int], up: bool
) -> int:
    """Number of windows along one axis; one that would start in the end's padding is left out."""
    room = length + sum(pads) - (window - 1) * dilation - 1
    count = (-(-room // stride) if up else room // stride) + 1
    return count - 1 if up and (count - 1) * stride >= length + pads[0] else count


def _max_unpool(node: OnnxNode) -> Expr:
    """Each value at the flat place its index names, zeros elsewhere."""
    rank = len(node.shape) - 2
    kernel = [int(size) for size in node.attrs["kernel_shape"]]
    strides = [int(size) for size in node.attrs.get("strides", [1] * rank)]
    pads = [int(size) for size in node.attrs.get("pads", [0] * (2 * rank))]
    wanted = node.ints(2, "output_shape")
    natural = [
        (n - 1) * strides[a] - pads[a] - pads[a + rank] + kernel[a]
        for a, n in enumerate(node.shape[2:])
    ]
    inner = (*node.shape[:2], *natural)
    shape = inner if wanted is None else tuple(wanted)
    count = prod(node.shape)
    # Indices count in the tensor that was pooled, which `output_shape` may be larger than.
    flat_shape = shape if wanted is None or prod(shape) < prod(inner) else inner
    zeros = relax.const(np.zeros(prod(flat_shape), node.dtype))
    values = node.emit(relax.op.reshape(node.x, (count,)))
    places = node.emit(relax.op.reshape(node[1], (count,)))
    flat = node.emit(relax.op.scatter_elements(zeros, places, values, axis=0))
    y = node.emit(relax.op.reshape(flat, flat_shape))
    if flat_shape == shape:
        return y
    width = [
        edge for have, want in zip(flat_shape, shape, strict=True) for edge in (0, want - have)
    ]
    return relax.op.nn.pad(y, width)


def _col2im(node: OnnxNode) -> Expr:
    """Overlapping blocks added up where they come from.

    x: [N, C*prod(block), L] -> [N, C, *image]
    """
    image, block = node.ints(1, "image_shape"), node.ints(2, "block_shape")
    if image is None or block is None:
        raise ValueError("image_shape and block_shape must be stored in the model")
    rank = len(image)
    strides = [int(size) for size in node.attrs.get("strides", [1] * rank)]
    dilations = [int(size) for size in node.attrs.get("dilations", [1] * rank)]
    pads = [int(size) for size in node.attrs.get("pads", [0] * (2 * rank))]
    batch, depth, _ = node.shape
    channels = depth // prod(block)
    counts = [
        (n + pads[a] + pads[a + rank] - (block[a] - 1) * dilations[a] - 1) // strides[a] + 1
        for a, n in enumerate(image)
    ]
    blocks = node.emit(relax.op.reshape(node.x, (batch, channels, *block, *counts)))

    def add_up(x: te.Tensor) -> te.Tensor:
        def element(*index: tirx.Var) -> tirx.PrimExpr:
            total = tirx.const(0, node.dtype)
            for step in product(*(range(size) for size in block)):
                within, places = [], []
                for a in range(rank):
                    reach = index[2 + a] + pads[a] - step[a] * dilations[a]
                    place = tirx.floordiv(reach, strides[a])
                    exact = tirx.floormod(reach, strides[a]) == 0
                    within.append(tirx.all(exact, place >= 0, place < counts[a]))
                    places.append(tirx.max(tirx.min(place, counts[a] - 1), 0))
                value = x(index[0], index[1], *step, *places)
                total = total + tirx.if_then_else(
                    tirx.all(*within), value, tirx.const(0, node.dtype)
                )
            return total

        return te.compute((batch, channels, *image), element, "blocks")

    return node.compute(add_up, blocks)


def _space_to_depth(node: OnnxNode) -> Expr:
    """[N, C, H, W] -> [N, C*b*b, H/b, W/b]; a pixel's place comes before its channel, or after in CRD."""
    batch, channels, height, width = node.shape
    size = node.number("blocksize", 1)
    split = (batch, channels, height // size, size, width // size, size)
    x = node.emit(relax.op.reshape(node.x, split))
    depth_last = node.text("mode", "DCR") == "CRD"
    order = [0, 1, 3, 5, 2, 4] if depth_last else [0, 3, 5, 1, 2, 4]
    x = node.emit(relax.op.permute_dims(x, order))
    return relax.op.reshape(x, (batch, channels * size * size, height // size, width // size))


def _roi_align(node: OnnxNode) -> Expr | None:
    """TVM's importer serves averages; its maximum is taken of other samples than the standard's."""
    if node.text("mode", "avg") == "max":
        raise ValueError("mode max is not supported; export the model with mode avg")
    return None


WINDOW: dict[str, Converter] = {
    "Col2Im": _col2im,
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
    "RoiAlign": _roi_align,
    "SpaceToDepth": _space_to_depth,
}
