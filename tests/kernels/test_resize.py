"""Resize kernels against their definition, in every layout and on every ISA row."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import check, every_isa, layout, spec
from tvmcomp.graph.layers import Resize
from tvmcomp.kernels.resize import build_resize
from tvmcomp.kernels.vector import GENERIC


def axis(rng, size, out, taps):
    """Source indices and weights as an importer makes them: neighbours whose weights sum to one."""
    if taps == 1:
        return (np.arange(out) * size // out).astype(np.int32)[:, None], np.ones(
            (out, 1), np.float32
        )
    first = rng.integers(0, size, out).astype(np.int32)
    second = np.minimum(first + 1, size - 1)
    weight = rng.random(out).astype(np.float32)
    return np.stack([first, second], 1), np.stack([1 - weight, weight], 1).astype(np.float32)


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("taps", [(1, 1), (2, 2), (1, 2), (2, 1)])
def test_resize(row, dtype, taps):
    rng = np.random.default_rng(4)
    for shape, out, halo, pad in [
        ((1, 1, 1, 1), (2, 3), 0, 0),
        ((2, 3, 4, 7), (6, 8), 1, 0),
        ((1, 5, 2, 67), (3, 5), 2, 3),
    ]:
        x = spec("x", shape, dtype, zero=12)
        y = spec("y", (shape[0], *out, shape[3]), dtype, zero=12)
        index_h, weight_h = axis(rng, shape[1], out[0], taps[0])
        index_w, weight_w = axis(rng, shape[2], out[1], taps[1])
        layer = Resize(
            name="r", inputs=("x",), output="y", index_h=index_h, weight_h=weight_h,
            index_w=index_w, weight_w=weight_w,
        )  # fmt: skip
        layouts = {"x": layout(x, 1 - halo % 2, pad), "y": layout(y, halo, pad)}
        check(build_resize, row, layer, {"x": x, "y": y}, layouts)


@every_isa
def test_ties_go_to_even(row):
    x, y = spec("x", (1, 1, 2, 1)), spec("y", (1, 1, 2, 1))
    half = np.array([[0.75, 0.25], [0.25, 0.75]], np.float32)
    layer = Resize(
        name="r", inputs=("x",), output="y", index_h=np.zeros((1, 1), np.int32),
        weight_h=np.ones((1, 1), np.float32), index_w=np.array([[0, 1], [0, 1]], np.int32),
        weight_w=half,
    )  # fmt: skip
    codes = np.array([0, 10], np.uint8).reshape(x.shape)
    layouts = {"x": layout(x), "y": layout(y)}
    got = check(build_resize, row, layer, {"x": x, "y": y}, layouts, arrays=[codes])
    assert got.ravel().tolist() == [2, 8]


def test_wrong_sizes_are_refused():
    x, y = spec("x", (1, 2, 2, 3)), spec("y", (1, 4, 4, 3))
    index, weight = axis(None, 2, 3, 1)
    layer = Resize(
        name="r", inputs=("x",), output="y", index_h=index, weight_h=weight, index_w=index,
        weight_w=weight,
    )  # fmt: skip
    layouts = {"x": layout(x), "y": layout(y)}
    assert build_resize(layer, {"x": x, "y": y}, layouts, GENERIC) is None
