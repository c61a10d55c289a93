"""Whether two results of one model are the same up to float rounding."""

from __future__ import annotations

import numpy as np

__all__ = ["compare"]

# Of the largest magnitude in the output, and of each value; integers and booleans are exact.
_TOLERANCE = {"float16": (2e-3, 5e-3), "float32": (1e-5, 1e-4), "float64": (1e-5, 1e-4)}


def compare(
    got: np.ndarray, want: np.ndarray, *, of_largest: float = 0.0, of_each: float = 0.0
) -> str:
    """What is wrong with `got`, "" if nothing; `of_largest` and `of_each` widen the dtype's own tolerance."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    if want.dtype.kind != "f":
        wrong = int(np.count_nonzero(got != want))
        return f"{wrong} of {want.size} values differ" if wrong else ""
    a, b = got.astype(np.float64), want.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(b)
    largest = float(np.abs(b[finite]).max(initial=0.0))
    least_of_largest, least_of_each = _TOLERANCE[want.dtype.name]
    with np.errstate(invalid="ignore"):
        allowed = max(of_largest, least_of_largest) * largest
        near = np.abs(a - b) <= allowed + max(of_each, least_of_each) * np.abs(b)
        far = ~(same | (near & finite))
        if not far.any():
            return ""
        error = np.abs(a - b)[far].max() / (largest or 1.0)
    return f"{int(far.sum())} of {want.size} values differ, by up to {error:.3g} of the largest"
