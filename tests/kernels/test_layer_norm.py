"""IntLayerNorm kernels against their definition: rows of every length, extreme and constant rows."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import check, every_isa, layout, spec
from tvmcomp.graph.layers import IntLayerNorm
from tvmcomp.kernels.layer_norm import LONGEST_ROW, build_layer_norm
from tvmcomp.kernels.vector import GENERIC

RNG = np.random.default_rng(0)
EPSILON = 1e-5 / 0.05**2


def norm(channels, centered, dtype, epsilon=EPSILON):
    low, high = (4, 250) if dtype == "uint8" else (-120, 126)
    zero = 128 if dtype == "uint8" else 3
    power = channels * (channels if centered else 1)
    return IntLayerNorm(
        name="n",
        inputs=("x",),
        output="y",
        multiplier=(RNG.uniform(40, 90, channels) * (1 if centered else channels**0.5)).astype(
            np.float32
        ),
        bias=(zero + RNG.uniform(-20, 20, channels)).astype(np.float32),
        epsilon=float(np.float32(epsilon * power)),
        centered=centered,
        low=low,
        high=high,
    )


@every_isa
@pytest.mark.parametrize("types", [("uint8", "uint8"), ("int8", "int8"), ("uint8", "int8")])
@pytest.mark.parametrize("centered", [True, False])
def test_rows_of_every_length(row, types, centered):
    zero = 130 if types[0] == "uint8" else -9
    for shape, halo, pad in [((2, 3, 4, 7), 1, 0), ((5, 67), 0, 0), ((1, 2, 2, 1200), 0, 16)]:
        x, y = spec("x", shape, types[0], zero=zero), spec("y", shape, types[1])
        layouts = {"x": layout(x, 0, pad), "y": layout(y, halo, pad)}
        layer = norm(shape[-1], centered, types[1])
        got = check(build_layer_norm, row, layer, {"x": x, "y": y}, layouts)
        if got.size > 500:
            assert (got.min(), got.max()) == (layer.low, layer.high), "both clips must be reached"


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("centered", [True, False])
def test_extreme_rows(row, dtype, centered):
    """Constant rows, rows of both extremes, one code off: sums near their largest and least."""
    length = 300
    least, most = (0, 255) if dtype == "uint8" else (-128, 127)
    codes = np.full((6, length), least, np.int64)
    codes[1] = most
    codes[2, ::2] = most
    codes[3, 7] = least + 1
    codes[4] = 11
    codes[5, 1:] = most
    x, y = spec("x", codes.shape, dtype, zero=11), spec("y", codes.shape, dtype)
    layouts = {"x": layout(x), "y": layout(y)}
    for epsilon in (EPSILON, 2.0**-40):
        layer = norm(length, centered, dtype, epsilon)
        arrays = [codes.astype(dtype)]
        check(build_layer_norm, row, layer, {"x": x, "y": y}, layouts, arrays=arrays)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_the_longest_row_does_not_overflow(dtype):
    from kernel_harness import ROWS

    for row in ROWS:
        if row.marks[0].args[0]:
            continue
        for code in (np.iinfo(dtype).min, np.iinfo(dtype).max):
            x, y = spec("x", (1, LONGEST_ROW), dtype, zero=0), spec("y", (1, LONGEST_ROW), dtype)
            layouts = {"x": layout(x), "y": layout(y)}
            codes = np.full(x.shape, code, dtype)
            codes[0, 5] = 1
            layer = norm(LONGEST_ROW, True, dtype)
            check(build_layer_norm, row.values[0], layer, {"x": x, "y": y}, layouts, arrays=[codes])


def test_longer_rows_are_refused():
    x, y = spec("x", (1, LONGEST_ROW + 1)), spec("y", (1, LONGEST_ROW + 1))
    layouts = {"x": layout(x), "y": layout(y)}
    layer = norm(LONGEST_ROW + 1, True, "uint8")
    assert build_layer_norm(layer, {"x": x, "y": y}, layouts, GENERIC) is None
