"""Do two networks say the same: signal to quantization noise, and the class they choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Agreement", "compare", "sqnr_db"]

Outputs = Sequence[Sequence[np.ndarray]]


@dataclass(frozen=True)
class Agreement:
    """`sqnr_db` of the worst output, None when `identical` (no noise) or not comparable (`reason`).

    `argmax` is the share of rows of the first output whose largest entry is at the same place.
    """

    sqnr_db: float | None
    identical: bool
    argmax: float | None
    samples: int
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return asdict(self)


def compare(reference: Outputs, other: Outputs) -> Agreement:
    """Compare the outputs of two networks on the same samples: `[sample][output]` arrays."""
    samples = len(reference)
    for ours, theirs in zip(reference, other, strict=True):
        shapes = [array.shape for array in ours], [array.shape for array in theirs]
        if shapes[0] != shapes[1]:
            return Agreement(None, False, None, samples, f"shapes {shapes[1]} against {shapes[0]}")
    per_output = [
        sqnr_db([sample[i] for sample in reference], [sample[i] for sample in other])
        for i in range(len(reference[0]))
    ]
    if any(math.isnan(value) for value in per_output):
        return Agreement(None, False, None, samples, "an output holds NaN or infinity")
    worst = min(per_output)
    same = [_top(ours[0]) == _top(theirs[0]) for ours, theirs in zip(reference, other, strict=True)]
    return Agreement(
        sqnr_db=worst if math.isfinite(worst) else None,
        identical=worst == math.inf,
        argmax=float(np.mean(np.concatenate(same))),
        samples=samples,
        reason=None if worst != -math.inf else "the reference output is all zero",
    )


def sqnr_db(reference: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """10 log10(sum reference^2 / sum (reference - other)^2) over all samples; inf when they are equal."""
    signal = noise = 0.0
    for ours, theirs in zip(reference, other, strict=True):
        wide = ours.astype(np.float64)
        signal += float(np.sum(wide**2))
        noise += float(np.sum((wide - theirs.astype(np.float64)) ** 2))
    if not math.isfinite(signal) or not math.isfinite(noise):
        return math.nan
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _top(output: np.ndarray) -> np.ndarray:
    rows = output.reshape(-1, output.shape[-1]) if output.ndim else output.reshape(1, 1)
    return np.asarray(rows.argmax(axis=-1))
