"""Observers: how the range of a tensor is chosen from the values it takes over the calibration data.

All of them stream: memory does not grow with the data. But for `MovingAverage` neither the order of the batches
nor how the data is cut into batches changes the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tvmcomp.calibrate.histogram import Histogram
from tvmcomp.calibrate.levels import check_levels
from tvmcomp.calibrate.tally import AverageTally, HistogramTally, RangeTally, Tally
from tvmcomp.errors import CalibrationError

__all__ = ["MSE", "MinMax", "MovingAverage", "Observer", "Percentile"]

# 64 KiB per tensor; between 16 and 64 bins fall on each of 256 levels.
_BINS = 8192
# Per channel the table is shared out: 16 KiB per channel.
_BINS_PER_CHANNEL = 2048
_GRID = 128
_ROUNDS = 8


class Observer(Protocol):
    """A way of choosing ranges; `axis` None is one range per tensor, else one per channel of that axis."""

    @property
    def axis(self) -> int | None:
        """The channel axis."""

    def start(self) -> Tally:
        """An empty tally."""


@dataclass(frozen=True)
class MinMax:
    """The smallest and largest value seen."""

    axis: int | None = None

    def start(self) -> Tally:
        """An empty tally."""
        return RangeTally(self.axis)


@dataclass(frozen=True)
class MovingAverage:
    """Averages of each batch's smallest and largest value; later batches weigh more.

    average = momentum * average + (1 - momentum) * batch, from the first batch's own values on. The result depends
    on the order of the batches and on how the data is cut into them; the same batches give the same range.
    """

    momentum: float = 0.9
    axis: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.momentum < 1.0:
            raise CalibrationError(
                f"momentum {self.momentum} is out of range; use one from 0 to below 1, like 0.9"
            )

    def start(self) -> Tally:
        """An empty tally."""
        return AverageTally(self.axis, self.momentum)


@dataclass(frozen=True)
class Percentile:
    """The central `percentile` % of the values: (100 - percentile) / 2 % are cut at either end.

    An end that lies at zero (after ReLU) is kept and the whole share is cut from the other one.
    """

    percentile: float = 99.99
    axis: int | None = None

    def __post_init__(self) -> None:
        if not 50.0 < self.percentile <= 100.0:
            raise CalibrationError(
                f"percentile {self.percentile} is out of range; use one above 50 and up to 100, like 99.99"
            )

    def start(self) -> Tally:
        """An empty tally."""
        return HistogramTally(self.axis, self._range, _bins(self.axis))

    def _range(
        self, histogram: Histogram, row: int, low: float, high: float
    ) -> tuple[float, float]:
        edges, counts, width = _with_zeros(histogram, row)
        cut = 1.0 - self.percentile / 100.0
        share = cut if low >= 0.0 or high <= 0.0 else cut / 2
        lower = low if low >= 0.0 else _quantile(edges, counts, width, share)
        upper = high if high <= 0.0 else _quantile(edges, counts, width, 1.0 - share)
        # A quantile is linear inside its bin, which may reach beyond the values in it.
        return min(max(low, lower), high), max(min(high, upper), low)


@dataclass(frozen=True)
class MSE:
    """The range whose uniform quantization to `levels` levels has the least mean squared error.

    symmetric:  the range is (-r, r) and the levels are -(n-1)/2 .. (n-1)/2, with an odd `levels`.
    exact_zero: zero is one of the levels, as padding and ReLU require of an activation.
    """

    levels: int = 256
    symmetric: bool = False
    exact_zero: bool = True
    axis: int | None = None

    def __post_init__(self) -> None:
        check_levels(self.levels, 2, symmetric=self.symmetric)

    def start(self) -> Tally:
        """An empty tally."""
        return HistogramTally(self.axis, self._range, _bins(self.axis))

    def _range(
        self, histogram: Histogram, row: int, low: float, high: float
    ) -> tuple[float, float]:
        edges, counts, width = histogram.row(row)
        if not len(edges) or low == high:
            return low, high
        centers = edges + width / 2
        zeros = 0 if self.exact_zero else int(histogram.zeros[row])
        centers, counts = np.append(centers, 0.0), np.append(counts, zeros)

        def error(candidate: tuple[float, float]) -> float:
            return self._error(centers, counts, *candidate)

        if self.symmetric:
            radius = max(-low, high)
            best = min(((-r, r) for r in radius * _fractions()), key=error)
        else:
            start = (min(low, 0.0), max(high, 0.0)) if self.exact_zero else (low, high)
            best = _descend(start, error)
        return best

    def _error(self, values: np.ndarray, counts: np.ndarray, low: float, high: float) -> float:
        scale = (high - low) / (self.levels - 1)
        zero_point = -low / scale
        if self.exact_zero:
            zero_point = float(np.rint(zero_point))
        codes = np.clip(np.rint(values / scale + zero_point), 0, self.levels - 1)
        return float(counts @ np.square(values - scale * (codes - zero_point)))


def _bins(axis: int | None) -> int:
    return _BINS if axis is None else _BINS_PER_CHANNEL


def _with_zeros(histogram: Histogram, row: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The bins of `row` with the zeros put back, as a bin at [0, width)."""
    edges, counts, width = histogram.row(row)
    at = int(np.searchsorted(edges, 0.0))
    if at < len(edges) and edges[at] == 0.0:
        counts = counts.copy()
        counts[at] += histogram.zeros[row]
        return edges, counts, width
    return np.insert(edges, at, 0.0), np.insert(counts, at, histogram.zeros[row]), width


def _quantile(edges: np.ndarray, counts: np.ndarray, width: float, share: float) -> float:
    """The value below which `share` of the counts lie, linear inside its bin."""
    below = np.cumsum(counts)
    wanted = share * below[-1]
    at = int(np.searchsorted(below, wanted))
    inside = (wanted - (below[at] - counts[at])) / max(counts[at], 1)
    return float(edges[at] + inside * width)


def _fractions() -> np.ndarray:
    return np.arange(1, _GRID + 1) / _GRID


def _descend(
    start: tuple[float, float], error: Callable[[tuple[float, float]], float]
) -> tuple[float, float]:
    """The best of shrinking both ends together, then each end in turn until nothing improves."""
    low, high = start
    middle = 0.0 if low <= 0.0 <= high else (low + high) / 2
    fractions = _fractions()
    lows, highs = middle + (low - middle) * fractions, middle + (high - middle) * fractions
    best = min(zip(lows, highs, strict=True), key=error)
    for _ in range(_ROUNDS):
        better = min(((low, best[1]) for low in lows if low < best[1]), key=error)
        better = min(((better[0], high) for high in highs if high > better[0]), key=error)
        if error(better) >= error(best):
            break
        best = better
    return float(best[0]), float(best[1])
