"""`Entropy`: the range that loses the least information, by Kullback-Leibler divergence between histograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvmcomp.calibrate.histogram import Histogram
from tvmcomp.calibrate.levels import check_levels
from tvmcomp.calibrate.tally import HistogramTally, Tally

__all__ = ["Entropy"]

# On either side of zero; the largest value falls into the upper half of them.
_BINS = 2048
# What a bin counts for in the coarse distribution if nothing but clipped values is in it.
_NEXT_TO_NOTHING = 1e-4


@dataclass(frozen=True)
class Entropy:
    """The threshold t on |x| with the least divergence KL(P || Q) (Migacz, 8-bit inference with TensorRT, 2017).

        P: counts of the bins in [-t, t], those beyond added to the outermost bins
        Q: counts of the bins in [-t, t], averaged over the bins with the same code, empty bins left empty

    Both are shares of all values, so what clipping has moved is missing from Q: if Q were normalized by itself, as
    published, a threshold below nearly all values would look like no loss at all.

    Every t from `levels` bins (half of them for a tensor of both signs) to the largest |x| is tried. The range is
    [-t, t], no wider than the values. Zero is one of its `levels` levels: exact zeros lose nothing and do not count.

    symmetric: the range is (-t, t) and the levels are -(n-1)/2 .. (n-1)/2, with an odd `levels`.
    """

    levels: int = 256
    symmetric: bool = False
    axis: int | None = None

    def __post_init__(self) -> None:
        check_levels(self.levels, 3, symmetric=self.symmetric)

    def start(self) -> Tally:
        """An empty tally."""
        return HistogramTally(self.axis, self._range, 2 * _BINS)

    def _range(
        self, histogram: Histogram, row: int, low: float, high: float
    ) -> tuple[float, float]:
        edges, counts, width = histogram.row(row)
        if not len(edges) or low == high:
            return low, high
        numbers = np.rint(edges / width).astype(np.int64)
        first, last = min(int(numbers[0]), 0), max(int(numbers[-1]) + 1, 0)
        dense = np.zeros(last - first)
        dense[numbers - first] = counts
        two_sided = self.symmetric or (low < 0.0 < high)
        least = (self.levels + 1) // 2 if two_sided else self.levels
        most = max(-first, last)
        best, chosen = np.inf, most
        # From the widest on: of equals the one that clips least.
        for threshold in range(most, min(least, most) - 1, -1):
            found = self._divergence(dense, first, threshold, width)
            if found < best:
                best, chosen = found, threshold
        limit = chosen * width
        if self.symmetric:
            radius = min(limit, max(-low, high))
            return -radius, radius
        return max(low, -limit), min(high, limit)

    def _divergence(self, counts: np.ndarray, first: int, threshold: int, width: float) -> float:
        """KL(P || Q) of clipping at `threshold` bins; `first` is the number of the first bin."""
        start, stop = max(first, -threshold), min(first + len(counts), threshold)
        inside = counts[start - first : stop - first]
        if not inside.any():
            return np.inf
        p = inside.copy()
        p[0] += counts[: start - first].sum()
        p[-1] += counts[stop - first :].sum()
        codes = self._codes(np.arange(start, stop) + 0.5, start, stop)
        starts = np.flatnonzero(np.diff(codes, prepend=codes[0] - 1))
        filled = inside > 0
        sums = np.add.reduceat(inside, starts)
        bins = np.add.reduceat(filled.astype(np.int64), starts)
        means = sums / np.maximum(bins, 1)
        q = np.repeat(means, np.diff(starts, append=len(inside))) * filled
        used = p > 0
        p, q = p[used], np.where(q[used] > 0, q[used], _NEXT_TO_NOTHING)
        p, q = p / p.sum(), q / p.sum()
        return float(p @ np.log(p / q))

    def _codes(self, centers: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Codes of `centers` on the grid of the range [start, stop], all in bins."""
        if self.symmetric:
            return np.rint(centers / (max(-start, stop) / (self.levels // 2)))
        low, high = min(start, 0), max(stop, 0)
        scale = (high - low) / (self.levels - 1)
        return np.clip(np.rint(centers / scale) + np.rint(-low / scale), 0, self.levels - 1)
