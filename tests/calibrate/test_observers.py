"""Observers: ranges, streaming, order, and the best errors a uniform grid can reach on a normal distribution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tvmcomp.calibrate import MSE, MinMax, MovingAverage, Observer, Percentile, TensorStats
from tvmcomp.calibrate.histogram import Histogram
from tvmcomp.errors import CalibrationError

OBSERVERS = (MinMax(), Percentile(99.0), MSE(), MSE(levels=255, symmetric=True))
FINITE = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)


def observe(observer: Observer, *batches: np.ndarray) -> TensorStats:
    tally = observer.start()
    for batch in batches:
        tally.update(batch)
    return tally.stats()


def equal(a: TensorStats, b: TensorStats) -> bool:
    pairs = ((a.low, b.low), (a.high, b.high), (a.minimum, b.minimum), (a.maximum, b.maximum))
    return a.count == b.count and all(np.array_equal(x, y) for x, y in pairs)


def heavy_tailed(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_t(2, shape).astype(np.float32)


@pytest.mark.parametrize("observer", OBSERVERS)
@given(data=hnp.arrays(np.float32, (12, 5), elements=FINITE), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_batches_in_any_order_equal_one_shot(
    observer: Observer, data: np.ndarray, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(12)
    batches = np.array_split(data[order], (1, 2, 7))
    assert equal(observe(observer, *batches), observe(observer, data))


@pytest.mark.parametrize("observer", [MinMax(axis=1), Percentile(99.0, axis=1), MSE(axis=1)])
def test_per_channel_order_does_not_matter(observer: Observer) -> None:
    data = heavy_tailed(64, 3, 10)
    data[:, 1] *= 1000
    data[:, 2] = 0
    shuffled = data[np.random.default_rng(0).permutation(64)]
    stats = observe(observer, *np.array_split(shuffled, 5))
    assert equal(stats, observe(observer, data))
    assert stats.low.shape == stats.high.shape == (3,)
    assert stats.high[1] > 100 * stats.high[0]
    assert stats.low[2] == stats.high[2] == 0


def test_per_channel_equals_each_channel_alone() -> None:
    data = heavy_tailed(50, 4)
    together = observe(MinMax(axis=1), data)
    for channel in range(4):
        alone = observe(MinMax(), data[:, channel])
        assert (together.low[channel], together.high[channel]) == (alone.low, alone.high)


def test_min_max_is_exact() -> None:
    stats = observe(MinMax(), np.float32([[3, -7]]), np.float32([[0.5, 11]]))
    assert (float(stats.low), float(stats.high), stats.count) == (-7.0, 11.0, 4)
    assert stats.low.shape == ()


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_percentile_agrees_with_numpy_to_a_bin(percentile: float) -> None:
    data = heavy_tailed(200_000)
    stats = observe(Percentile(percentile), data)
    cut = (100 - percentile) / 2
    expected = np.percentile(data, [cut, 100 - cut])
    bin_width = 2 * np.abs(data).max() / 4096
    np.testing.assert_allclose([stats.low, stats.high], expected, atol=2 * bin_width)
    assert stats.maximum == data.max()


@pytest.mark.parametrize("observer", [Percentile(99.0), MSE()])
def test_batches_that_grow_equal_batches_that_shrink(observer: Observer) -> None:
    """The histogram widens by a factor of 100 between batches, or not at all: it must not show."""
    data = heavy_tailed(10_000)
    ordered = data[np.argsort(np.abs(data))]
    batches = np.split(ordered * np.geomspace(1e-4, 1, 10_000, dtype=np.float32), 10)
    growing, shrinking = observe(observer, *batches), observe(observer, *batches[::-1])
    assert equal(growing, shrinking)
    assert equal(growing, observe(observer, np.concatenate(batches)))


def test_percentile_cuts_only_the_open_end_of_a_relu() -> None:
    data = np.maximum(heavy_tailed(100_000), 0)
    stats = observe(Percentile(99.0), data)
    assert stats.low == 0
    assert abs(np.mean(data > stats.high) - 0.01) < 0.001


@pytest.mark.parametrize(
    ("levels", "optimum"), [(4, 0.11885), (8, 0.03744), (16, 0.01154)], ids=("2bit", "3bit", "4bit")
)
def test_mse_reaches_the_optimum_of_a_normal_distribution(levels: int, optimum: float) -> None:
    data = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    stats = observe(MSE(levels=levels, exact_zero=False), data)
    scale = (stats.high - stats.low) / (levels - 1)
    codes = np.clip(np.rint((data - stats.low) / scale), 0, levels - 1)
    error = np.mean(np.square(codes * scale + stats.low - data))
    assert abs(error / optimum - 1) < 0.02


@pytest.mark.parametrize(
    ("levels", "optimum"),
    [(4, 0.14943), (8, 0.040639), (16, 0.011864)],
    ids=("2bit", "3bit", "4bit"),
)
def test_mse_with_an_exact_zero_reaches_its_own_optimum(levels: int, optimum: float) -> None:
    """The optima by brute force over scale with an integer zero point; zero costs 26, 8.5 and 2.7 %."""
    data = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    stats = observe(MSE(levels=levels), data)
    scale = (stats.high - stats.low) / (levels - 1)
    zero_point = np.rint(-stats.low / scale)
    codes = np.clip(np.rint(data / scale) + zero_point, 0, levels - 1)
    error = np.mean(np.square((codes - zero_point) * scale - data))
    assert abs(error / optimum - 1) < 0.02


def test_mse_clips_outliers_and_min_max_does_not() -> None:
    data = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    data[7] = 1000
    assert observe(MinMax(), data).high == 1000
    assert observe(MSE(levels=16), data[data < 100]).high < 4


def test_symmetric_mse_is_symmetric() -> None:
    stats = observe(MSE(levels=15, symmetric=True), heavy_tailed(10_000) + 1)
    assert stats.low == -stats.high
    assert stats.high < stats.maximum


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-38])
def test_constant_tensor(observer: Observer, value: float) -> None:
    stats = observe(observer, np.full((4, 4), value, np.float32))
    assert stats.low <= np.float32(value) <= stats.high
    assert np.isfinite([stats.low, stats.high]).all()


def test_bad_settings_say_what_to_use() -> None:
    with pytest.raises(CalibrationError, match="use one above 50 and up to 100"):
        Percentile(0.1)
    with pytest.raises(CalibrationError, match="an odd number"):
        MSE(levels=256, symmetric=True)


class TestHistogram:
    @given(
        data=hnp.arrays(np.float32, (3, 20), elements=FINITE),
        cuts=st.lists(st.integers(0, 20), max_size=3),
    )
    @settings(max_examples=60, deadline=None)
    def test_growth_equals_a_fresh_histogram(self, data: np.ndarray, cuts: list[int]) -> None:
        grown, fresh = Histogram(3, 64), Histogram(3, 64)
        for part in np.split(data, sorted(cuts), axis=1):
            grown.update(part)
        fresh.update(data)
        for row in range(3):
            for a, b in zip(grown.row(row), fresh.row(row), strict=True):
                np.testing.assert_array_equal(a, b)

    def test_counts_everything_in_its_bin(self) -> None:
        histogram = Histogram(1, 8)
        histogram.update(np.array([[0.0, 0.5, 0.9, -0.1, 3.9, -4.0, 0.0]]))
        edges, counts, width = histogram.row(0)
        # |-4| needs bins of width 2 on [-8, 8).
        assert width == 2.0
        assert dict(zip(edges, counts, strict=True)) == {-4.0: 1, -2.0: 1, 0.0: 2, 2.0: 1}
        assert histogram.zeros[0] == 2

    def test_memory_does_not_grow(self) -> None:
        histogram = Histogram(1, 64)
        for exponent in range(-30, 30):
            histogram.update(np.float32([[2.0**exponent, -(2.0**exponent)]]))
        edges, counts, _ = histogram.row(0)
        assert len(edges) <= 64
        assert counts.sum() == 120


def test_moving_average_weighs_later_batches_more() -> None:
    batches = [np.float32([[-1, 4]]), np.float32([[-3, 8]]), np.float32([[-2, 0]])]
    stats = observe(MovingAverage(0.75), *batches)
    low, high = -1.0, 4.0
    for batch in batches[1:]:
        low, high = 0.75 * low + 0.25 * batch.min(), 0.75 * high + 0.25 * batch.max()
    assert (float(stats.low), float(stats.high)) == (low, high)
    assert (stats.minimum, stats.maximum, stats.count) == (-3, 8, 6)
    assert equal(stats, observe(MovingAverage(0.75), *batches))
    assert not equal(stats, observe(MovingAverage(0.75), *batches[::-1]))
    assert observe(MovingAverage(0.0), *batches).high == 0


def test_moving_average_of_one_batch_is_its_range() -> None:
    data = heavy_tailed(30, 3)
    for axis in (None, 1):
        one, exact = observe(MovingAverage(axis=axis), data), observe(MinMax(axis), data)
        assert equal(one, exact)
    zeros = observe(MovingAverage(), np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float32))
    assert zeros.low == zeros.high == 0


def test_moving_average_passes_over_empty_batches() -> None:
    empty = np.empty((0, 3), np.float32)
    data = heavy_tailed(30, 3)
    assert equal(observe(MovingAverage(), empty, data, empty), observe(MinMax(), data))


@pytest.mark.parametrize("momentum", [-0.1, 1.0, np.nan])
def test_momentum_out_of_range(momentum: float) -> None:
    with pytest.raises(CalibrationError, match=r"like 0\.9"):
        MovingAverage(momentum)
