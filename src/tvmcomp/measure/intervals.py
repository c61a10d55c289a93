"""Confidence intervals of means: the bootstrap over samples, and what holds where it has no spread."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONFIDENCE", "METHOD", "SEED", "Mean", "mean_interval"]

CONFIDENCE = 0.95
SEED = 0
METHOD = (
    "percentile bootstrap over samples, 9,999 resamples; where all samples score alike, the exact "
    "bound on the share of others that could differ"
)
_RESAMPLES = 9_999
_AT_ONCE = 1 << 22  # drawn counts held at a time


@dataclass(frozen=True)
class Mean:
    """The mean of a score over samples and its confidence interval, None where there is no sample by sample."""

    value: float
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """A JSON-able form."""
        return asdict(self)


def mean_interval(
    values: NDArray[np.floating], floor: float = -np.inf, ceiling: float = np.inf, seed: int = SEED
) -> Mean:
    """Mean of `values` [samples], all within [floor, ceiling], with its percentile bootstrap interval.

    Resampling n samples only decides how often each distinct value comes up, so the counts are drawn
    (multinomial) instead of the samples: the same distribution in a fraction of the time and memory.
    If all values are equal, no resample differs, which says nothing of samples not seen: with n equal
    ones the share of others is at most u = 1 - ((1 - confidence) / 2) ** (1 / n) (Clopper and Pearson's
    bound), so the mean is within (1 - u) * value + u * [floor, ceiling].
    """
    values = np.asarray(values, np.float64)
    distinct, counts = np.unique(values, return_counts=True)
    tail = (1 - CONFIDENCE) / 2
    if len(distinct) == 1:
        value = float(distinct[0])
        share = 1 - tail ** (1 / len(values))
        if not (np.isfinite(floor) and np.isfinite(ceiling)):
            return Mean(value)
        return Mean(
            value, (1 - share) * value + share * floor, (1 - share) * value + share * ceiling
        )
    generator = np.random.default_rng(seed)
    means = []
    left = _RESAMPLES
    while left:
        part = min(left, max(1, _AT_ONCE // len(distinct)))
        drawn = generator.multinomial(len(values), counts / len(values), part)
        means.append(drawn @ distinct / len(values))
        left -= part
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Mean(float(values.mean()), float(low), float(high))
