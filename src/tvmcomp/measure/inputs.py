"""Inputs for timing that look like data a network really sees: speed depends on the values."""

from __future__ import annotations

import numpy as np

from tvmcomp.errors import DataError
from tvmcomp.model import Signature, TensorType

__all__ = ["GENERATED", "sample_inputs"]

GENERATED = (
    "generated: smooth fields with the 1/f spectrum and channel correlation of photographs, "
    "zero mean, unit deviation, clipped at 3; integers: Zipf-distributed ids below 100, masks of ones, "
    "positions in order, type ids of zero"
)

_SHARED = 0.9  # correlation of the colour channels of a photograph
_CLIP = 3.0
_IDS = 100


def sample_inputs(signature: Signature, seed: int = 0) -> dict[str, np.ndarray]:
    """One array per input of `signature`, the same for the same seed.

    Zeros let a processor clock higher and saturate nothing; uniform noise switches more transistors
    than any photograph. Floats are `GENERATED` fields along the axes that carry space or time (the
    last two of [N, C, H, W], the middle two of [N, H, W, C], the second of [N, T, C] and [N, K]);
    uint8 are those fields as pixels, int8 as codes; wider integers are token ids, within their bounds.
    """
    generator = np.random.default_rng(seed)
    return {name: _tensor(generator, name, of) for name, of in signature.inputs.items()}


def _tensor(generator: np.random.Generator, name: str, of: TensorType) -> np.ndarray:
    array = _values(generator, name, of)
    if of.bounds is None:
        return array
    return np.clip(array, max(of.bounds[0], 0), of.bounds[1]).astype(array.dtype)


def _values(generator: np.random.Generator, name: str, of: TensorType) -> np.ndarray:
    dtype = np.dtype(of.dtype)
    if 0 in of.shape:
        return np.zeros(of.shape, dtype)
    if dtype == np.bool_ or (dtype.kind in "iu" and "mask" in name):
        return np.ones(of.shape, dtype)
    if dtype.kind == "f":
        return np.asarray(_field(generator, of.shape), dtype)
    if dtype == np.uint8:
        return np.asarray(np.rint(127.5 + 42 * _field(generator, of.shape)), np.uint8)
    if dtype == np.int8:
        return np.asarray(np.rint(42 * _field(generator, of.shape)), np.int8)
    if dtype.kind in "iu" and "position" in name and of.shape:
        return np.broadcast_to(np.arange(of.shape[-1], dtype=dtype), of.shape).copy()
    if dtype.kind in "iu" and ("type" in name or "segment" in name):
        # Tables of token types have two rows, so any other id could point past their end.
        return np.zeros(of.shape, dtype)
    if dtype.kind in "iu":
        return np.asarray(np.minimum(generator.zipf(1.2, of.shape) - 1, _IDS - 1), dtype)
    raise DataError(f"input {name!r} is {of.dtype}, for which no data can be made; pass the inputs")


def _field(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Gaussian field: smooth in space or time, correlated across the channels."""
    smooth, channel = _axes(shape)
    if not smooth:
        return np.clip(generator.standard_normal(shape), -_CLIP, _CLIP)
    noise = generator.standard_normal(shape)
    if channel is not None and shape[channel] > 1:
        common = np.take(noise, [0], axis=channel)
        noise = np.sqrt(_SHARED) * common + np.sqrt(1 - _SHARED) * noise
    spectrum = np.fft.fftn(noise, axes=smooth)
    square = np.zeros([1] * len(shape))
    for axis in smooth:
        line = np.fft.fftfreq(shape[axis])
        square = square + line.reshape([-1 if i == axis else 1 for i in range(len(shape))]) ** 2
    lowest = 1.0 / max(shape[axis] for axis in smooth)
    # Amplitude 1/f of photographs; a third axis needs a steeper fall to be as smooth along each.
    fall = np.maximum(np.sqrt(square), lowest) ** max(1.0, len(smooth) / 2)
    field = np.fft.ifftn(spectrum / fall, axes=smooth).real
    field -= field.mean(axis=smooth, keepdims=True)
    deviation = field.std()
    if deviation == 0:  # every smooth axis has length 1: nothing to be smooth along
        field, deviation = noise, 1.0
    clipped: np.ndarray = np.clip(field / deviation, -_CLIP, _CLIP)
    return clipped


def _axes(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int | None]:
    """(axes the field is smooth along, axis of the channels) for a shape."""
    rank = len(shape)
    if rank <= 1:
        return tuple(range(rank)), None
    if rank == 2:
        return (1,), None
    if rank == 3:
        return (1,), 2
    # The channel axis is the shorter of the two places it can stand in.
    if shape[1] <= shape[-1]:
        return tuple(range(2, rank)), 1
    return tuple(range(1, rank - 1)), rank - 1
