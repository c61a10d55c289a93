"""Uniform affine arithmetic: from a range to scale and zero point, from a weight to its codes."""

from __future__ import annotations

import numpy as np

from tvmcomp.calibrate import MSE, MinMax, TensorStats
from tvmcomp.compress.granularity import Granularity
from tvmcomp.compress.packed_weight import UniformWeight
from tvmcomp.graph.layers import QParams
from tvmcomp.target import CodeRange

__all__ = ["activation_qparams", "quantize_weight"]

# A range below this is as good as zero; products and quotients of scales above it stay normal float32 numbers.
_MIN_SCALE = 2.0**-40
# Fractions of the full range that the MSE search tries on weights: coarse ones, then steps around the best.
_COARSE = np.arange(100, 19, -5) / 100
_FINE = np.array([-4, -3, -2, -1, 1, 2, 3, 4]) / 100
# Weights compared at once: their temporaries stay in the cache.
_AT_ONCE = 1 << 18


def activation_qparams(
    stats: TensorStats, codes: CodeRange, *, power_of_two: bool = False
) -> QParams:
    """Per-tensor scale and zero point of the range in `stats`, widened to contain zero.

    scale = (high - low) / (codes.high - codes.low), zero_point = rint(codes.low - low / scale), or
    scale = max|x| / codes.high and 0 where codes are symmetric. A range of nothing but zero has scale 1.
    """
    low, high = min(float(stats.low), 0.0), max(float(stats.high), 0.0)
    span = (high - low) / (codes.high - codes.low)
    scale = max(high / codes.high, low / codes.low) if codes.symmetric else span
    rounded = float(_scales(np.array([scale]), power_of_two)[0])
    if codes.symmetric:
        return QParams(rounded, 0)
    zero_point = np.rint(codes.low - low / rounded)
    return QParams(rounded, int(np.clip(zero_point, codes.low, codes.high)))


def quantize_weight(
    weight: np.ndarray,
    granularity: Granularity,
    codes: CodeRange,
    *,
    bits: int,
    observer: MinMax | MSE,
    power_of_two: bool = False,
    least: float = 0.0,
) -> UniformWeight:
    """Round to nearest, half to even; `codes` symmetric means int8 codes without zero points.

    weight: float32; granularity: with its axis; all-zero slices get scale 1; least: no scale is below it.
    """
    blocks = granularity.blocks(weight)
    shape = granularity.parameter_shape(weight.shape)
    rows = blocks.reshape(-1, blocks.shape[-1]).astype(np.float64)
    scale, zero_point = _fit(rows, codes, observer, power_of_two)
    scale = np.maximum(scale, least)
    scale = scale.astype(np.float32).reshape(shape)
    expanded = granularity.expand(scale, weight.shape).astype(np.float64)
    points = granularity.expand(zero_point.reshape(shape), weight.shape)
    dtype = np.int8 if codes.symmetric else np.uint8
    values = np.clip(np.rint(weight / expanded) + points, codes.low, codes.high).astype(dtype)
    stored = None if codes.symmetric else zero_point.astype(np.uint8).reshape(shape)
    return UniformWeight.from_codes(values, scale, stored, bits=bits, granularity=granularity)


def _fit(
    rows: np.ndarray, codes: CodeRange, observer: MinMax | MSE, power_of_two: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of each row."""
    low, high = np.minimum(rows.min(axis=1), 0.0), np.maximum(rows.max(axis=1), 0.0)
    if isinstance(observer, MinMax):
        return _qparams(low, high, codes, power_of_two)
    step = max(1, _AT_ONCE // rows.shape[1])
    best = np.concatenate(
        [
            _least_error(
                rows[i : i + step], low[i : i + step], high[i : i + step], codes, power_of_two
            )
            for i in range(0, len(rows), step)
        ]
    )
    return _qparams(low * best, high * best, codes, power_of_two)


def _least_error(
    rows: np.ndarray, low: np.ndarray, high: np.ndarray, codes: CodeRange, power_of_two: bool
) -> np.ndarray:
    """The fraction of the full range, row by row, with the least squared error."""
    values = rows.astype(np.float32)
    best, least = np.ones(len(rows)), np.full(len(rows), np.inf)

    def attempt(fraction: np.ndarray) -> None:
        nonlocal best, least
        scale, zero = _qparams(low * fraction, high * fraction, codes, power_of_two)
        step, point = scale[:, None].astype(np.float32), zero[:, None].astype(np.float32)
        error = np.rint(values / step)
        np.clip(error, codes.low - point, codes.high - point, out=error)
        error *= step
        error -= values
        total = np.einsum("ij,ij->i", error, error, dtype=np.float64)
        best, least = np.where(total < least, fraction, best), np.minimum(total, least)

    for fraction in _COARSE:
        attempt(np.full(len(rows), fraction))
    coarse = best
    for offset in _FINE:
        attempt(np.minimum(coarse + offset, 1.0))
    return best


def _qparams(
    low: np.ndarray, high: np.ndarray, codes: CodeRange, power_of_two: bool
) -> tuple[np.ndarray, np.ndarray]:
    if codes.symmetric:
        scale = _scales(np.maximum(high / codes.high, low / codes.low), power_of_two)
        return scale, np.zeros_like(scale)
    scale = _scales((high - low) / (codes.high - codes.low), power_of_two)
    return scale, np.clip(np.rint(codes.low - low / scale), codes.low, codes.high)


def _scales(scale: np.ndarray, power_of_two: bool) -> np.ndarray:
    """Scales as float32 can hold them, none too small to divide by; 1 where there is no range."""
    guarded = np.where(scale == 0.0, 1.0, np.maximum(scale, _MIN_SCALE))
    if power_of_two:
        guarded = np.exp2(np.ceil(np.log2(guarded)))
    return guarded.astype(np.float32).astype(np.float64)
