"""Entropy against a slow reading of its definition, and on distributions whose range is known."""

from __future__ import annotations

from math import floor, log

import numpy as np
import pytest

from tvmcomp.calibrate import Entropy, TensorStats, entropy
from tvmcomp.errors import CalibrationError

RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal(100_000).astype(np.float32)


def observe(observer: Entropy, *batches: np.ndarray) -> TensorStats:
    tally = observer.start()
    for batch in batches:
        tally.update(batch)
    return tally.stats()


def slow(data: np.ndarray, levels: int, bins: int) -> tuple[float, float]:
    """The definition, value by value and bin by bin: [low, high]."""
    values = [float(v) for v in data if v != 0.0]
    low, high = float(data.min()), float(data.max())
    width = 1.0
    while max(abs(v) for v in values) / width >= bins:
        width *= 2
    while max(abs(v) for v in values) / width < bins / 2:
        width /= 2
    counts: dict[int, int] = {}
    for value in values:
        counts[floor(value / width)] = counts.get(floor(value / width), 0) + 1
    first, last = min(0, min(counts)), max(0, max(counts) + 1)
    least = (levels + 1) // 2 if low < 0 < high else levels
    best, chosen = float("inf"), 0
    for t in range(max(-first, last), least - 1, -1):
        start, stop = max(-t, first), min(t, last)
        p = {b: counts.get(b, 0) for b in range(start, stop)}
        q = dict(p)
        for b, count in counts.items():
            if b < start:
                p[start] += count
            elif b >= stop:
                p[stop - 1] += count
        scale = (max(stop, 0) - min(start, 0)) / (levels - 1)
        zero = np.rint(-min(start, 0) / scale)
        codes = {b: min(max(np.rint((b + 0.5) / scale) + zero, 0), levels - 1) for b in q}
        for code in set(codes.values()):
            members = [b for b in q if codes[b] == code and q[b]]
            mean = sum(q[b] for b in members) / max(len(members), 1)
            q.update(dict.fromkeys(members, mean))
        if not any(q.values()):
            continue
        total = sum(p.values())
        found = sum(n / total * log(n / (q[b] or 1e-4)) for b, n in p.items() if n)
        if found < best:
            best, chosen = found, t
    return max(low, -chosen * width), min(high, chosen * width)


@pytest.mark.parametrize("levels", [16, 31])
@pytest.mark.parametrize("name", ["normal", "outliers", "relu", "negative", "silu", "offset"])
def test_equals_the_definition(monkeypatch: pytest.MonkeyPatch, name: str, levels: int) -> None:
    monkeypatch.setattr(entropy, "_BINS", 128)
    data = NORMAL[:4000].copy()
    if name != "normal":
        data[:8] *= 9
    data = {
        "relu": np.maximum(data, 0),
        "negative": -np.abs(data),
        "silu": data / (1 + np.exp(-data)),
        "offset": 30 + data,
    }.get(name, data)
    stats = observe(Entropy(levels), data)
    assert (float(stats.low), float(stats.high)) == slow(data, levels, 128)


def test_a_normal_distribution_with_outliers_is_clipped() -> None:
    data = NORMAL.copy()
    data[:20] *= 40
    stats = observe(Entropy(), data)
    assert np.abs(data).max() > 50
    assert 3 < stats.high < 15
    assert stats.low == -stats.high
    half = observe(Entropy(), np.maximum(data, 0))
    assert half.low == 0
    assert 3 < half.high < 15
    symmetric = observe(Entropy(levels=255, symmetric=True), data)
    assert 3 < symmetric.high < 20


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_a_uniform_distribution_is_not(low: float) -> None:
    data = RNG.uniform(low, 1, 100_000).astype(np.float32)
    stats = observe(Entropy(), data)
    np.testing.assert_allclose([stats.low, stats.high], [low, 1], atol=2e-3)


def test_values_far_from_zero_keep_their_range() -> None:
    data = 5 + NORMAL / 10
    stats = observe(Entropy(), data)
    assert stats.high > 5.3


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0, 1e-30])
def test_a_constant_is_its_own_range(value: float) -> None:
    stats = observe(Entropy(), np.full(10, value, np.float32))
    assert stats.low == stats.high == np.float32(value)


def test_exact_zeros_do_not_count() -> None:
    data = np.maximum(NORMAL, 0)
    assert equal(observe(Entropy(), data), observe(Entropy(), data[data > 0]))


def equal(a: TensorStats, b: TensorStats) -> bool:
    return bool((a.low, a.high) in [(b.low, b.high), (0.0, b.high)])


def test_batches_that_grow_merge_into_one_histogram() -> None:
    data = NORMAL * np.geomspace(1e-3, 1, NORMAL.size, dtype=np.float32)
    batches = np.split(data, 10)
    growing, shrinking = observe(Entropy(), *batches), observe(Entropy(), *batches[::-1])
    at_once = observe(Entropy(), data)
    assert (growing.low, growing.high) == (shrinking.low, shrinking.high)
    assert (growing.low, growing.high) == (at_once.low, at_once.high)


def test_per_channel() -> None:
    data = np.stack([NORMAL[:20_000], 100 * NORMAL[20_000:40_000]], axis=1)
    stats = observe(Entropy(axis=1), data)
    alone = observe(Entropy(), data[:, 1])
    assert (stats.low[1], stats.high[1]) == (alone.low, alone.high)
    assert stats.high[0] < 6


@pytest.mark.parametrize("observer", [(2, False), (256, True)])
def test_levels_that_cannot_be(observer: tuple[int, bool]) -> None:
    with pytest.raises(CalibrationError, match="levels cannot be"):
        Entropy(*observer)
