"""The definitions of the row-wise layers within one step of float64 arithmetic on the same codes."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcomp.compress.reference import compute, exp_factors, exp_table, simulate_layer
from tvmcomp.graph.layers import (
    Embedding,
    IntAffine,
    IntLayerNorm,
    IntSoftmax,
    Layer,
    MaskSteps,
    QParams,
    TensorSpec,
)

RNG = np.random.default_rng(0)


def far(layer: Layer, codes: np.ndarray, y: QParams, x: QParams, dtype: str = "uint8") -> int:
    """The largest distance in steps."""
    shape = layer.weight.shape[1:] if isinstance(layer, Embedding) else ()
    tensors = {
        "x": TensorSpec("x", codes.shape, str(codes.dtype), x),
        "y": TensorSpec("y", (*codes.shape, *shape), dtype, y),
    }
    got, want = (run(layer, tensors, [codes]).astype(int) for run in (compute, simulate_layer))
    assert len(np.unique(want)) > 3
    return int(np.abs(got - want).max())


@pytest.mark.parametrize("scale", [0.002, 0.03, 0.2])
@pytest.mark.parametrize("length", [33, 1000])
@pytest.mark.parametrize("shift", [None, 0, 4])
def test_softmax(scale: float, length: int, shift: int | None) -> None:
    codes = RNG.integers(0, 256, (20, length)).astype(np.uint8)
    steps = RNG.choice([0, -30, 5, MaskSteps.STEPS_EXCLUDED, -MaskSteps.STEPS_LIMIT], (20, length))
    masks = () if shift is None else (steps.astype(np.int32),)
    largest = min(1.0, np.exp(scale * 128) / length)
    layer = IntSoftmax(
        name="s",
        inputs=("x",),
        output="y",
        exps=exp_factors(scale, length, masked=bool(masks), shift=shift or 0),
        inverse_scale=float(np.float32(255 / largest)),
        masks=masks,
        shift=shift or 0,
    )
    assert far(layer, codes, QParams(largest / 255, 0), QParams(scale, 100)) <= 1


@pytest.mark.parametrize("scale", [1e-4, 0.01, 0.5, 6.0])
@pytest.mark.parametrize("shift", [0, 4])
def test_exponentials_end_in_zero_and_their_sum_fits(scale: float, shift: int) -> None:
    for length in (1, 128, 4096, 1 << 16):
        exps = exp_factors(scale, length, masked=True, shift=shift)
        if exps is None:
            assert scale < 1e-3
            continue
        table = exp_table(exps)
        assert table[-1] == 0
        assert int(table[0]) * length < 2**31
        exact = table[0] * np.exp(-np.arange(len(table)) * np.float64(np.float32(scale)) / 2**shift)
        assert np.abs(table - exact).max() <= 1


def test_a_row_too_long_for_its_sum_has_no_exponentials() -> None:
    assert exp_factors(0.1, 1 << 17, masked=False) is None


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_layer_norm(centered: bool, dtype: str) -> None:
    info = np.iinfo(dtype)
    codes = RNG.integers(info.min, info.max, (40, 300), endpoint=True).astype(dtype)
    codes[0] = 7
    codes[1, 1:] = 7
    power = 300.0 * (300.0 if centered else 1.0)
    layer = IntLayerNorm(
        name="n",
        inputs=("x",),
        output="y",
        multiplier=(RNG.uniform(-50, 50, 300) * (1 if centered else 300**0.5)).astype(np.float32),
        bias=RNG.uniform(-30, 30, 300).astype(np.float32),
        epsilon=float(np.float32(1e-5 * power / 0.05**2)),
        centered=centered,
        low=info.min,
        high=info.max,
    )
    assert far(layer, codes, QParams(0.02, 0), QParams(0.05, 9), dtype) <= 1


def test_affine_and_embedding() -> None:
    codes = RNG.integers(0, 256, (5, 40, 8)).astype(np.uint8)
    factors = RNG.uniform(-2, 2, (40, 1)).astype(np.float32)
    layer = IntAffine(
        name="a",
        inputs=("x",),
        output="y",
        multiplier=factors,
        bias=factors[0] * 90,
        low=0,
        high=255,
    )
    assert far(layer, codes, QParams(0.02, 0), QParams(0.05, 9)) <= 1
    table = Embedding(
        name="e",
        inputs=("x",),
        output="y",
        weight=RNG.integers(-127, 128, (10, 70)).astype(np.int8),
        scale=RNG.uniform(0.2, 0.8, 10).astype(np.float32),
    )
    indices = np.array([[0, 9, 4], [-1, -10, 3]], np.int64)
    assert far(table, indices, QParams(0.02, 120), QParams(1.0, 0)) <= 1
