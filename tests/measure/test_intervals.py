"""Intervals of means: scipy's bootstrap is the yardstick, and certainty is never claimed from a few samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from tvmcomp.measure.intervals import mean_interval


@pytest.mark.parametrize(
    "values",
    [
        np.arange(200) % 5 > 0,  # right and wrong
        np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 300, p=[0.05, 0.9, 0.05]),  # paired
        np.random.default_rng(1).random(150),  # shares per sample
    ],
)
def test_it_is_the_bootstrap(values):
    found = mean_interval(np.asarray(values, float))
    expected = bootstrap(
        (np.asarray(values, float),), np.mean, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    width = expected.high - expected.low
    assert found.value == pytest.approx(np.mean(values))
    assert found.low == pytest.approx(expected.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.high, abs=0.05 * width)
    assert mean_interval(np.asarray(values, float)) == found  # seeded


@pytest.mark.parametrize("count", [1, 20, 1000])
def test_samples_that_all_agree_leave_room_for_others(count):
    exact = binomtest(count, count).proportion_ci(method="exact")
    found = mean_interval(np.ones(count), 0.0, 1.0)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(exact.low)
    paired = mean_interval(np.zeros(count), -1.0, 1.0)
    assert paired.low == pytest.approx(-(1 - exact.low))
    assert paired.high == pytest.approx(1 - exact.low)
    assert mean_interval(np.full(count, 3.5)).low is None  # a score without bounds
