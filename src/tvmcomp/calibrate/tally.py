"""Tallies: what an observer keeps of the values it has been given, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np

from tvmcomp.calibrate.histogram import Histogram
from tvmcomp.calibrate.stats import TensorStats

__all__ = ["AverageTally", "ChooseRange", "HistogramTally", "RangeTally", "Tally"]


class Tally(Protocol):
    """Statistics in the making."""

    def update(self, values: np.ndarray) -> None:
        """Take in one batch of values of the tensor."""

    def stats(self) -> TensorStats:
        """The range over everything taken in so far."""


# (histogram, row, smallest, largest value of the row) -> range
ChooseRange: TypeAlias = Callable[[Histogram, int, float, float], tuple[float, float]]


class RangeTally:
    """The smallest and largest value."""

    def __init__(self, axis: int | None) -> None:
        self._axis = axis
        self._low = self._high = np.empty(0)
        self._count = 0

    def update(self, values: np.ndarray) -> None:
        rows = _rows(values, self._axis)
        if not rows.size:
            return
        low, high = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
        if self._count:
            low, high = np.minimum(self._low, low), np.maximum(self._high, high)
        self._low, self._high = low, high
        self._count += values.size

    def stats(self) -> TensorStats:
        low, high = _shaped(self._low, self._axis), _shaped(self._high, self._axis)
        return TensorStats(low, high, low, high, self._count)


class AverageTally:
    """Running averages of each batch's smallest and largest value: average = m * average + (1 - m) * batch."""

    def __init__(self, axis: int | None, momentum: float) -> None:
        self._axis = axis
        self._momentum = momentum
        self._seen = RangeTally(axis)
        self._average: tuple[np.ndarray, np.ndarray] | None = None

    def update(self, values: np.ndarray) -> None:
        if not values.size:
            return
        self._seen.update(values)
        batch = RangeTally(self._axis)
        batch.update(values)
        found = batch.stats()
        if self._average is None:
            self._average = found.low, found.high
            return
        old, new = self._momentum, 1.0 - self._momentum
        low, high = self._average
        self._average = old * low + new * found.low, old * high + new * found.high

    def stats(self) -> TensorStats:
        seen = self._seen.stats()
        low, high = self._average or (seen.low, seen.high)
        return TensorStats(
            np.asarray(low), np.asarray(high), seen.minimum, seen.maximum, seen.count
        )


class HistogramTally:
    """A histogram of `bins` bins per row, from which `choose` takes the range in the end."""

    def __init__(self, axis: int | None, choose: ChooseRange, bins: int) -> None:
        self._axis = axis
        self._seen = RangeTally(axis)
        self._histogram: Histogram | None = None
        self._choose = choose
        self._bins = bins

    def update(self, values: np.ndarray) -> None:
        rows = _rows(values, self._axis)
        if self._histogram is None:
            self._histogram = Histogram(len(rows), self._bins)
        self._seen.update(values)
        self._histogram.update(rows)

    def stats(self) -> TensorStats:
        seen = self._seen.stats()
        if self._histogram is None:
            return seen
        lows, highs = np.atleast_1d(seen.minimum), np.atleast_1d(seen.maximum)
        ranges = [
            self._choose(self._histogram, row, float(low), float(high))
            for row, (low, high) in enumerate(zip(lows, highs, strict=True))
        ]
        low, high = (_shaped(np.array(ends), self._axis) for ends in zip(*ranges, strict=True))
        return TensorStats(low, high, seen.minimum, seen.maximum, seen.count)


def _rows(values: np.ndarray, axis: int | None) -> np.ndarray:
    if axis is None:
        return values.reshape(1, -1)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _shaped(ends: np.ndarray, axis: int | None) -> np.ndarray:
    return ends if axis is not None else ends.reshape(())
