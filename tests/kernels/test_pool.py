"""MaxPool and IntAvgPool against their definition, in every layout and on every ISA row."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import check, every_isa, layout, spec
from tvmcomp.graph.layers import IntAvgPool, MaxPool
from tvmcomp.kernels.pool import build_avg_pool, build_max_pool
from tvmcomp.kernels.vector import GENERIC

# x shape, kernel, strides, pads, dilation
CASES = [
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((2, 7, 9, 19), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    ((1, 5, 4, 70), (2, 3), (1, 2), (0, 1, 1, 1), (1, 1)),
    ((1, 6, 6, 16), (3, 2), (1, 1), (2, 1, 2, 0), (2, 1)),
    ((1, 8, 7, 5), (7, 7), (1, 1), (3, 3, 3, 3), (1, 1)),
    ((1, 9, 3, 33), (2, 2), (3, 2), (0, 0, 0, 1), (1, 1)),
]


def case(kind, dtype, shape, kernel, strides, pads, dilation, halo=0, pad=0, **fields):
    out = [
        (size + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilation[i] - 1) // strides[i] + 1
        for i, size in enumerate(shape[1:3])
    ]
    x = spec("x", shape, dtype, scale=0.11, zero=90)
    if kind is MaxPool:
        fields["dilation"] = dilation
        y = spec("y", (shape[0], *out, shape[3]), dtype, scale=0.11, zero=90)
    else:
        y = spec("y", (shape[0], *out, shape[3]), dtype, scale=0.07, zero=-3)
    layer = kind(
        name="p", inputs=("x",), output="y", kernel=kernel, strides=strides, pads=pads, **fields
    )
    layouts = {"x": layout(x, max(pads), pad), "y": layout(y, halo, pad)}
    return layer, {"x": x, "y": y}, layouts


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_max_pool(row, dtype):
    for i, geometry in enumerate(CASES):
        check(build_max_pool, row, *case(MaxPool, dtype, *geometry, halo=i % 3, pad=(i * 5) % 11))


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_max_pool_does_not_let_the_halo_win(row, dtype):
    """The halo holds the zero point 90, above every code inside."""
    layer, tensors, layouts = case(MaxPool, dtype, *CASES[1], halo=1)
    codes = np.random.default_rng(0).integers(3, 60, tensors["x"].shape).astype(dtype)
    got = check(build_max_pool, row, layer, tensors, layouts, arrays=[codes])
    assert got.max() < 60


@every_isa
def test_max_pool_of_negative_floats_ignores_the_zero_halo(row):
    layer, tensors, layouts = case(MaxPool, "float32", *CASES[1], halo=1)
    values = -np.random.default_rng(0).random(tensors["x"].shape).astype(np.float32) - 1
    got = check(build_max_pool, row, layer, tensors, layouts, arrays=[values])
    assert got.max() < -1


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("include", [True, False])
def test_avg_pool(row, dtype, include):
    for i, geometry in enumerate(CASES):
        if geometry[4] != (1, 1):
            continue
        low, high = (-60, 99) if dtype == "int8" else (20, 222)
        args = case(
            IntAvgPool, dtype, *geometry, halo=i % 3, pad=(i * 5) % 11, count_include_pad=include,
            low=low, high=high,
        )  # fmt: skip
        check(build_avg_pool, row, *args)


@every_isa
def test_global_avg_pool_to_two_axes(row):
    shape = (2, 7, 7, 40)
    x, y = spec("x", shape, scale=0.1, zero=4), spec("y", (2, 40), scale=0.04, zero=100)
    layer = IntAvgPool(
        name="p", inputs=("x",), output="y", kernel=(7, 7), strides=(1, 1), pads=(0, 0, 0, 0),
        count_include_pad=True, low=0, high=255,
    )  # fmt: skip
    layouts = {"x": layout(x, 1, 3), "y": layout(y)}
    check(build_avg_pool, row, layer, {"x": x, "y": y}, layouts)


@every_isa
def test_avg_pool_rounds_half_to_even(row):
    x, y = spec("x", (1, 1, 4, 1), scale=1.0, zero=0), spec("y", (1, 1, 3, 1), scale=1.0, zero=0)
    layer = IntAvgPool(
        name="p", inputs=("x",), output="y", kernel=(1, 2), strides=(1, 1), pads=(0, 0, 0, 0),
        count_include_pad=True, low=0, high=255,
    )  # fmt: skip
    codes = np.array([0, 1, 2, 3], np.uint8).reshape(x.shape)
    layouts = {"x": layout(x), "y": layout(y)}
    got = check(build_avg_pool, row, layer, {"x": x, "y": y}, layouts, arrays=[codes])
    assert got.ravel().tolist() == [0, 2, 2]


def test_a_window_of_border_alone_is_refused():
    args = case(MaxPool, "uint8", (1, 2, 2, 4), (2, 2), (1, 1), (2, 2, 2, 2), (1, 1))
    assert build_max_pool(*args, GENERIC) is None
    assert build_avg_pool(*args, GENERIC) is None


def test_key_tells_zero_points_apart():
    def key(zero):
        layer, tensors, layouts = case(
            IntAvgPool, "uint8", *CASES[1], count_include_pad=True, low=0, high=255
        )
        tensors["x"] = spec("x", tensors["x"].shape, scale=0.11, zero=zero)
        return build_avg_pool(layer, tensors, layouts, GENERIC).key

    assert key(3) == key(3)
    assert key(3) != key(4)
