"""Float32 arithmetic with the roundings the kernels have, written out in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tvmcomp.graph.layers import QParams

__all__ = ["code_range", "dequantize", "fma_f32", "make_table", "quantize", "round_clip"]

_CHUNK = 1 << 16


def fma_f32(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> NDArray[np.float32]:
    """float32 a*b + c, rounded once; operands broadcast."""
    a, b, c = np.broadcast_arrays(*(np.asarray(value, np.float32) for value in (a, b, c)))
    out = np.empty(a.shape, np.float32)
    if out.ndim <= 1 or out.size <= _CHUNK:
        out[...] = _fma(a, b, c)
        return out
    # Slabs along the first axes keep the float64 temporaries in the cache.
    for index in np.ndindex(out.shape[:1]):
        out[index] = fma_f32(a[index], b[index], c[index])
    return out


def _fma(
    a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]
) -> NDArray[np.float32]:
    with np.errstate(all="ignore"):
        # Exact: two 24-bit significands.
        product = np.multiply(a, b, dtype=np.float64)
        addend = c.astype(np.float64)
        total = product + addend
        back = total - product
        error = (product - (total - back)) + (addend - back)
        # A sum rounded to odd (Boldo, Melquiond 2008) survives the next rounding, to float32.
        bits = total.view(np.int64)
        fix = (error != 0) & (bits & 1 == 0) & np.isfinite(total)
        toward = np.where((error > 0) == (total > 0), 1, -1)
        return np.where(fix, bits + toward, bits).view(np.float64).astype(np.float32)


def code_range(dtype: str | np.dtype[np.generic]) -> tuple[int, int]:
    """Lowest and highest code of "uint8" or "int8"."""
    info = np.iinfo(np.dtype(dtype))
    return int(info.min), int(info.max)


def round_clip(
    value: NDArray[np.floating],
    low: int,
    high: int,
    dtype: str | np.dtype[np.generic],
    zero_point: int = 0,
) -> NDArray[np.integer]:
    """clip(rint(value) + zero_point, low, high), half to even; NaN is `low`."""
    # `fmax` ignores NaN.
    steps = np.minimum(np.fmax(np.rint(value), low - zero_point), high - zero_point)
    return (steps.astype(np.int32) + zero_point).astype(dtype)


def quantize(
    real: NDArray[np.floating], qparams: QParams, dtype: str | np.dtype[np.generic]
) -> NDArray[np.integer]:
    """saturate(rint(real / scale) + zero_point), dividing in float32; NaN is the lowest code."""
    low, high = code_range(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.rint(real.astype(np.float32) / np.float32(qparams.scale))
    steps = np.where(np.isnan(steps), -np.inf, steps)
    zero = qparams.zero_point
    return (np.clip(steps, low - zero, high - zero).astype(np.int32) + zero).astype(dtype)


def dequantize(codes: NDArray[np.integer], qparams: QParams) -> NDArray[np.float32]:
    """float32(code - zero_point) * scale."""
    shifted = (codes.astype(np.int32) - qparams.zero_point).astype(np.float32)
    return shifted * np.float32(qparams.scale)


def make_table(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    x: QParams,
    y: QParams,
    dtype: str,
    x_dtype: str | None = None,
) -> NDArray[np.integer]:
    """The 256 codes of y for x's codes in ascending order: quantize(function(dequantize(code))).

    `dtype` is y's, and x's unless `x_dtype` says otherwise. `function` sees the float32 values as float64; its
    result is rounded to float32 once.
    """
    low, high = code_range(x_dtype or dtype)
    real = dequantize(np.arange(low, high + 1), x)
    with np.errstate(all="ignore"):
        return quantize(np.asarray(function(real.astype(np.float64))), y, dtype)
