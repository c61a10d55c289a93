"""Whether two results of one model are the same up to float rounding."""

from __future__ import annotations

import numpy as np

__all__ = ["compare"]


def compare(got: np.ndarray, want: np.ndarray, tolerance: float = 1e-4) -> str:
    """What is wrong with `got`, "" if nothing: `tolerance` of the largest magnitude, integers exactly."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    if want.dtype.kind != "f":
        wrong = int(np.count_nonzero(got != want))
        return f"{wrong} of {want.size} values differ" if wrong else ""
    a, b = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(b)
    largest = float(np.abs(b[finite]).max(initial=0.0))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        same |= finite & (np.abs(a - b) <= tolerance * largest)
    return "" if same.all() else f"{int((~same).sum())} of {same.size} values differ"
