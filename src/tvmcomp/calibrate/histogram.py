"""A histogram of fixed size whose bins grow by powers of two, so that the order of the data cannot matter."""

from __future__ import annotations

import numpy as np

__all__ = ["Histogram"]

# Bin widths below this are pointless and would leave float64's exact range.
_MIN_EXPONENT = -200


class Histogram:
    """Counts of floor(x / 2^exponent) over [-bins/2, bins/2), one row per channel; zeros are counted apart.

    The exponent is the smallest that holds the largest |x| seen. When it grows, neighbouring bins merge,
    and floor(floor(x) / 2) = floor(x / 2): the counts are those of a fresh histogram over all data.
    """

    def __init__(self, rows: int, bins: int) -> None:
        self._counts = np.zeros((rows, bins), np.int64)
        self._exponents = np.full(rows, _MIN_EXPONENT, np.int64)
        self.zeros = np.zeros(rows, np.int64)

    def update(self, rows: np.ndarray) -> None:
        """Add finite values [rows, n]."""
        largest = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
        half = self._counts.shape[1] // 2
        # frexp: largest = m * 2^e with m < 1, so 2^e bounds it and e - log2(half) is the bins' width.
        needed = np.frexp(largest)[1] - (half.bit_length() - 1)
        needed = np.where(largest > 0, np.maximum(needed, _MIN_EXPONENT), _MIN_EXPONENT)
        for row, values in enumerate(rows):
            if needed[row] > self._exponents[row]:
                self._grow(row, int(needed[row]))
            # In float64, where scaling by a power of two is exact for every float32.
            scaled = np.multiply(values, 2.0 ** -float(self._exponents[row]), dtype=np.float64)
            bins = np.floor(scaled, out=scaled).astype(np.int64)
            bins += half
            zeros = values.size - np.count_nonzero(values)
            self._counts[row] += np.bincount(bins, minlength=2 * half)
            self._counts[row, half] -= zeros
            self.zeros[row] += zeros

    def row(self, row: int) -> tuple[np.ndarray, np.ndarray, float]:
        """(lower edges, counts, width) of the bins of `row` that hold anything, ascending."""
        counts = self._counts[row]
        numbers = np.flatnonzero(counts)
        width = float(np.ldexp(1.0, int(self._exponents[row])))
        return (numbers - len(counts) // 2) * width, counts[numbers], width

    def _grow(self, row: int, exponent: int) -> None:
        half = self._counts.shape[1] // 2
        # All of a half collapses into one bin after bit_length steps; more would only shift further.
        steps = min(exponent - int(self._exponents[row]), half.bit_length())
        merged = (np.arange(-half, half) >> steps) + half
        counts = np.zeros_like(self._counts[row])
        np.add.at(counts, merged, self._counts[row])
        self._counts[row] = counts
        self._exponents[row] = exponent
