"""Uniform affine arithmetic: zero is exact, rounding is half to even, errors are what theory says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tvmcomp.calibrate import MSE, MinMax, TensorStats
from tvmcomp.compress.granularity import Granularity, PerAxis, PerGroup, PerTensor
from tvmcomp.compress.packed_weight import UniformWeight
from tvmcomp.compress.quantize.affine import activation_qparams, quantize_weight
from tvmcomp.graph.layers import QParams
from tvmcomp.target import CodeRange

U8 = CodeRange("uint8", 0, 255)
S8 = CodeRange("int8", -128, 127)
SYMMETRIC = CodeRange("int8", -127, 127, symmetric=True)
VALUES = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


def signed(bits: int) -> CodeRange:
    most = (1 << (bits - 1)) - 1
    return CodeRange("int8", -most, most, symmetric=True)


def unsigned(bits: int) -> CodeRange:
    return CodeRange("uint8", 0, (1 << bits) - 1)


def qparams(low: float, high: float, codes: CodeRange, *, power_of_two: bool = False) -> QParams:
    ends = np.array(low), np.array(high)
    return activation_qparams(TensorStats(*ends, *ends, 1), codes, power_of_two=power_of_two)


def weight(
    array: np.ndarray,
    granularity: Granularity,
    codes: CodeRange,
    bits: int = 8,
    *,
    mse: bool = False,
) -> UniformWeight:
    observer = MSE() if mse else MinMax()
    return quantize_weight(array, granularity, codes, bits=bits, observer=observer)


@given(low=VALUES, high=VALUES, codes=st.sampled_from((U8, S8, SYMMETRIC)))
@settings(max_examples=300, deadline=None)
def test_zero_is_a_code_and_the_range_is_covered(low: float, high: float, codes: CodeRange) -> None:
    low, high = min(low, high), max(low, high)
    q = qparams(low, high, codes)
    assert codes.low <= q.zero_point <= codes.high
    assert q.scale == np.float32(q.scale) > 0
    least, most = (q.scale * (code - q.zero_point) for code in (codes.low, codes.high))
    # Rounding the zero point moves the grid by at most half a step.
    slack = 0.5001 * q.scale
    assert least <= min(low, 0) + slack
    assert most >= max(high, 0) - slack


@pytest.mark.parametrize(
    ("low", "high", "codes", "scale", "zero_point"),
    [
        (0, 255, U8, 1, 0),  # after relu
        (2, 255, U8, 1, 0),  # does not contain zero: widened
        (-255, -1, U8, 1, 255),  # all negative: zero is the highest code
        (-127.5, 127.5, U8, 1, 128),  # 127.5 rounds half to even
        (-0.5, 254.5, U8, 1, 0),  # 0.5 rounds half to even
        (0, 255, S8, 1, -128),
        (-255, 0, S8, 1, 127),
        (-100, 155, S8, 1, -28),  # a signed zero point below zero is not clipped
        (-155, 100, S8, 1, 27),
        (-254, 10, SYMMETRIC, 2, 0),
        (0, 0, U8, 1, 0),
        (0, 0, S8, 1, -128),
        (0, 0, SYMMETRIC, 1, 0),
    ],
)
def test_known_scales_and_zero_points(
    low: float, high: float, codes: CodeRange, scale: float, zero_point: int
) -> None:
    assert qparams(low, high, codes) == QParams(float(np.float32(scale)), zero_point)


def test_a_tiny_range_keeps_a_usable_scale() -> None:
    scale = qparams(0, 1e-30, U8).scale
    assert 1e-15 < scale < 1e-9
    assert np.isfinite(np.float32(1) / np.float32(scale))


def test_power_of_two_scales_cover_the_range() -> None:
    q = qparams(-5, 3, SYMMETRIC, power_of_two=True)
    assert (q.scale, q.zero_point) == (2.0**-4, 0)
    assert q.scale * 127 >= 5


@given(
    array=hnp.arrays(np.float32, (4, 6), elements=VALUES), bits=st.integers(2, 8), data=st.data()
)
@settings(max_examples=200, deadline=None)
def test_weights_are_within_half_a_step(array: np.ndarray, bits: int, data: st.DataObject) -> None:
    granularity = data.draw(st.sampled_from([PerTensor(), PerAxis(0), PerAxis(1), PerGroup(3, 1)]))
    form = weight(array, granularity, signed(bits), bits)
    assert form.zero_point is None
    assert np.abs(form.codes()).max() <= 2 ** (bits - 1) - 1
    step = granularity.expand(form.scale, form.shape)
    # float32 rounding of scale and product adds a relative 1e-6 of the value.
    slack = 1e-6 * np.abs(array) + 1e-12
    assert np.all(np.abs(form.dequantized() - array) <= step / 2 + slack)


@given(array=hnp.arrays(np.float32, (4, 6), elements=VALUES), bits=st.integers(2, 8))
@settings(max_examples=150, deadline=None)
def test_affine_weights_are_within_a_step_and_keep_zero(array: np.ndarray, bits: int) -> None:
    array[0, 0] = 0
    form = weight(array, PerAxis(0), unsigned(bits), bits)
    assert form.zero_point is not None
    assert form.zero_point.dtype == np.uint8
    values = form.dequantized()
    assert values[0, 0] == 0
    slack = 1e-6 * np.abs(array) + 1e-12
    assert np.all(np.abs(values - array) <= form.scale[:, None] * 1.001 + slack)


def test_each_output_channel_has_its_own_scale() -> None:
    """A wrong axis gives scales of another length, or the same one for all."""
    conv = np.ones((3, 2, 2, 3), np.float32) * np.float32([1, 10, 100])[:, None, None, None]
    form = weight(conv, PerAxis(0), SYMMETRIC)
    np.testing.assert_allclose(form.scale, np.float32([1, 10, 100]) / 127, rtol=1e-6)
    assert np.all(form.codes() == 127)
    dense = np.ones((3, 3), np.float32) * np.float32([1, 10, 100])
    np.testing.assert_array_equal(weight(dense, PerAxis(1), SYMMETRIC).codes(), 127)


def test_a_dead_channel_has_scale_one() -> None:
    array = np.zeros((2, 8), np.float32)
    array[1] = 3
    form = weight(array, PerAxis(0), SYMMETRIC)
    assert form.scale[0] == 1
    np.testing.assert_allclose(form.dequantized(), array, rtol=1e-6)


def test_rounding_is_half_to_even() -> None:
    array = np.float32([127, 0.5, 1.5, 2.5, -0.5, -1.5])
    codes = weight(array, PerTensor(), SYMMETRIC).codes()
    assert codes.tolist() == [127, 0, 2, 2, 0, -2]


def test_a_narrow_weight_range_is_used_on_both_ends() -> None:
    """AVX2: [-64, 63]."""
    codes = CodeRange("int8", -64, 63, symmetric=True)
    assert weight(np.float32([63, -63]), PerTensor(), codes).codes().tolist() == [63, -63]
    assert weight(np.float32([10, -64]), PerTensor(), codes).codes().tolist() == [10, -64]


def test_a_bit_is_worth_six_decibels() -> None:
    array = np.random.default_rng(0).uniform(-1, 1, (64, 1024)).astype(np.float32)
    errors = [
        np.mean(np.square(weight(array, PerTensor(), signed(bits), bits).dequantized() - array))
        for bits in (4, 5, 6, 7, 8)
    ]
    gains = 10 * np.log10(np.divide(errors[:-1], errors[1:]))
    # 2^b - 1 levels, so the first bits are worth a little more.
    assert np.all((gains > 5.9) & (gains < 6.8))


@pytest.mark.parametrize(("bits", "optimum"), [(2, 0.11885), (3, 0.03744), (4, 0.01154)])
def test_the_form_reaches_the_optimum_of_a_normal_distribution(bits: int, optimum: float) -> None:
    """With a zero point between two codes, which the form holds as a float."""
    data = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    tally = MSE(levels=1 << bits, exact_zero=False).start()
    tally.update(data)
    stats = tally.stats()
    scale = np.float32((stats.high - stats.low) / ((1 << bits) - 1)).reshape(())
    zero_point = np.float32(-stats.low / scale).reshape(())
    codes = np.clip(np.rint(data / scale + zero_point), 0, (1 << bits) - 1).astype(np.uint8)
    form = UniformWeight.from_codes(codes, scale, zero_point, bits=bits, granularity=PerTensor())
    error = np.mean(np.square(form.dequantized() - data))
    assert abs(error / optimum - 1) < 0.02


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("granularity", [PerTensor(), PerAxis(0), PerGroup(64, 1)])
def test_mse_weights_beat_min_max(bits: int, granularity: Granularity) -> None:
    array = np.random.default_rng(0).standard_normal((16, 512)).astype(np.float32)
    errors = [
        np.mean(
            np.square(weight(array, granularity, signed(bits), bits, mse=mse).dequantized() - array)
        )
        for mse in (True, False)
    ]
    assert errors[0] < 0.9 * errors[1]


def test_mse_of_integer_zero_points_reaches_its_optimum() -> None:
    array = np.random.default_rng(0).standard_normal((1, 200_000)).astype(np.float32)
    form = weight(array, PerTensor(), unsigned(4), 4, mse=True)
    error = np.mean(np.square(form.dequantized() - array))
    assert abs(error / 0.011864 - 1) < 0.02
