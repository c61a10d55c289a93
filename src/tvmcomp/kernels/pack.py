"""The constants of a dot-product kernel in one blob, in the order the kernel reads them.

    [scalars | table | per vector of outputs: multiplier, bias, start | weights]

weights: [group][block of outputs][tap][step][vector][lane][unit], zero where a lane or unit has no channel.
Multiplier, bias and start (the accumulator's first value, if x has a zero point or is read shifted) are one vector
each; floats have only the bias, and a layer whose input has its scale at run time the weights' scale, bias and sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tvmcomp.graph.layers import DynamicConv, FloatConv, IntConv
from tvmcomp.kernels.kernel import ALIGNMENT
from tvmcomp.kernels.spec import Spec, columns
from tvmcomp.kernels.vector import byte_size

__all__ = ["Places", "pack", "parts", "places", "unpack_weights"]


@dataclass(frozen=True)
class Places:
    """Byte offsets into the blob; `scales` holds `parts` vectors of `vector` bytes per output vector."""

    residual_scale: int
    zero: int  # an int32 0, which the compiler does not know to be 0
    table: int
    scales: int
    weights: int
    group: int  # bytes of one group's weights
    step: int  # bytes of one step of one vector


def places(spec: Spec) -> Places:
    """Where each part lies."""
    g = spec.geometry
    table = ALIGNMENT
    scales = table + (256 if spec.epilogue.table else 0)
    vectors = -(-g.outputs // spec.lanes)
    step = spec.lanes * spec.mac.unit * byte_size(spec.mac.weight)
    weights = scales + g.groups * vectors * parts(spec) * spec.lanes * 4
    weights = -(-weights // ALIGNMENT) * ALIGNMENT
    steps = g.taps[0][0] * g.taps[1][0] * spec.units
    return Places(0, 8, table, scales, weights, vectors * steps * step, step)


def parts(spec: Spec) -> int:
    """Vectors of float32 or int32 per vector of outputs: bias, or scale, bias and one of start or sum."""
    if spec.dtype == "float32":
        return 1
    if spec.epilogue.dynamic:
        return 3
    return 3 if spec.start else 2


def pack(layer: IntConv | DynamicConv | FloatConv, spec: Spec, first: int = 0) -> NDArray[np.uint8]:
    """The blob; integer sums start at `first` times the sum of the weights."""
    at = places(spec)
    blob = np.zeros(at.weights + spec.geometry.groups * at.group, np.uint8)
    weights = pack_weights(layer.weight, spec)
    blob[at.weights :] = weights.reshape(-1).view(np.uint8)
    if isinstance(layer, FloatConv):
        rows = [layer.bias]
    elif isinstance(layer, DynamicConv):
        total = _weight_sums(layer).astype(np.int32).view(np.float32)
        rows = [layer.weight_scale, layer.bias, total]
    else:
        start = (first * _weight_sums(layer)).astype(np.int32).view(np.float32)
        rows = [layer.multiplier, layer.bias, start][: parts(spec)]
        blob[:4] = np.array([layer.residual_scale], np.float32).view(np.uint8)
        if layer.table is not None:
            codes = np.ascontiguousarray(layer.table.astype(spec.epilogue.dtype))
            blob[at.table : at.table + 256] = codes.view(np.uint8)
    scales = _vectors(np.stack([row.astype(np.float32) for row in rows], axis=1), spec)
    scales = np.ascontiguousarray(scales.transpose(0, 1, 3, 2))
    blob[at.scales : at.scales + scales.nbytes] = scales.reshape(-1).view(np.uint8)
    return blob


def _weight_sums(layer: IntConv | DynamicConv) -> NDArray[np.int64]:
    """[outputs]."""
    return layer.weight.reshape(layer.weight.shape[0], -1).sum(axis=1, dtype=np.int64)


def _vectors(array: NDArray[np.generic], spec: Spec) -> NDArray[np.generic]:
    """[outputs, ...] as [groups, vectors, lanes, ...], zero-padded."""
    g = spec.geometry
    vectors = -(-g.outputs // spec.lanes)
    array = array.reshape(g.groups, g.outputs, *array.shape[1:])
    padded = np.zeros((g.groups, vectors * spec.lanes, *array.shape[2:]), array.dtype)
    padded[:, : g.outputs] = array
    return padded.reshape(g.groups, vectors, spec.lanes, *array.shape[2:])


def pack_weights(weight: NDArray[np.generic], spec: Spec) -> NDArray[np.generic]:
    """[O, KH, KW, I/groups] to the order of the module's docstring, flat."""
    g = spec.geometry
    steps = g.taps[0][0] * g.taps[1][0] * spec.units
    runs = weight.reshape(weight.shape[0], -1, g.run)
    padded = np.zeros((*runs.shape[:2], spec.units * spec.mac.unit), weight.dtype)
    padded[..., : g.run] = runs
    vectors = _vectors(padded.reshape(weight.shape[0], steps, spec.mac.unit), spec)
    blocks = []
    for group in vectors:
        for part in columns(spec):
            block = group[part.start : part.start + part.count * part.vectors]
            block = block.reshape(part.count, part.vectors, spec.lanes, steps, spec.mac.unit)
            blocks.append(block.transpose(0, 3, 1, 2, 4).reshape(-1))
    return np.concatenate(blocks)


def unpack_weights(
    packed: NDArray[np.generic], spec: Spec, shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """The inverse of `pack_weights`."""
    g = spec.geometry
    steps = g.taps[0][0] * g.taps[1][0] * spec.units
    groups = []
    for group in packed.reshape(g.groups, -1):
        rows, used = [], 0
        for part in columns(spec):
            size = part.count * part.vectors * spec.lanes * steps * spec.mac.unit
            block = group[used : used + size]
            block = block.reshape(part.count, steps, part.vectors, spec.lanes, spec.mac.unit)
            rows.append(block.transpose(0, 2, 3, 1, 4).reshape(-1, steps * spec.mac.unit))
            used += size
        groups.append(np.concatenate(rows)[: g.outputs])
    runs = np.concatenate(groups).reshape(shape[0], -1, spec.units * spec.mac.unit)[..., : g.run]
    return runs.reshape(shape)
