"""Quantize, Dequantize, Copy against their definition, in every layout and on every ISA row."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import check, every_isa, layout, spec
from tvmcomp.graph.layers import Copy, Dequantize, Quantize
from tvmcomp.kernels.convert import build_copy, build_dequantize, build_quantize
from tvmcomp.kernels.vector import GENERIC

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 3), (1, 4, 3, 16), (2, 1, 7, 37), (1, 9, 2, 70)]
LAYOUTS = [(0, 0), (1, 0), (2, 5), (0, 13)]


def reals(rng, shape):
    """Ties, saturation on both sides, NaN and infinities among ordinary values."""
    x = (rng.integers(-600, 600, shape) * 0.5).astype(np.float32)
    flat = x.reshape(-1)
    flat[::5] = rng.standard_normal(flat[::5].size) * 40
    flat[1::11] = np.nan
    flat[2::13] = np.inf
    flat[3::17] = -np.inf
    flat[4::19] = 3e38
    return x


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_quantize_straight(row, dtype):
    rng = np.random.default_rng(1)
    for i, shape in enumerate(SHAPES):
        halo, pad = LAYOUTS[i % 4]
        x = spec("x", shape, "float32")
        y = spec("y", shape, dtype, scale=1.0 if i % 2 else 0.37, zero=-7 if dtype == "int8" else 9)
        layer = Quantize(name="q", inputs=("x",), output="y")
        layouts = {"x": layout(x, i % 2, i % 3), "y": layout(y, halo, pad)}
        check(build_quantize, row, layer, {"x": x, "y": y}, layouts, arrays=[reals(rng, shape)])


@every_isa
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 19])
def test_quantize_planes_to_pixels(row, channels):
    rng = np.random.default_rng(channels)
    for i, (height, width) in enumerate([(1, 1), (3, 7), (2, 33), (4, 16)]):
        x = spec("x", (2, channels, height, width), "float32")
        y = spec("y", (2, height, width, channels), scale=1.0, zero=128)
        layer = Quantize(name="q", inputs=("x",), output="y", perm=(0, 2, 3, 1))
        layouts = {"x": layout(x), "y": layout(y, i % 3, (0, 1, 4, 61)[i])}
        check(build_quantize, row, layer, {"x": x, "y": y}, layouts, arrays=[reals(rng, x.shape)])


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_dequantize(row, dtype):
    for i, shape in enumerate([*SHAPES, (5,), (3, 70), (2, 3, 4)]):
        x = spec("x", shape, dtype, scale=0.0173, zero=-100 if dtype == "int8" else 201)
        y = spec("y", shape, "float32")
        layer = Dequantize(name="d", inputs=("x",), output="y")
        halo, pad = LAYOUTS[i % 4] if len(shape) == 4 else (0, 0)
        layouts = {"x": layout(x, halo, pad), "y": layout(y, i % 2 if len(shape) == 4 else 0)}
        check(build_dequantize, row, layer, {"x": x, "y": y}, layouts)


@every_isa
@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("perm", [None, (0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2)])
def test_copy(row, dtype, perm):
    for i, shape in enumerate(SHAPES):
        x = spec("x", shape, dtype, zero=77)
        y = spec("y", shape if perm is None else [shape[axis] for axis in perm], dtype, zero=77)
        layer = Copy(name="c", inputs=("x",), output="y", perm=perm)
        layouts = {"x": layout(x, *LAYOUTS[i % 4]), "y": layout(y, *LAYOUTS[(i + 1) % 4])}
        check(build_copy, row, layer, {"x": x, "y": y}, layouts)


@every_isa
def test_copy_of_lower_rank(row):
    for shape, perm in [((5, 7), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((6,), (0,))]:
        x = spec("x", shape, "float32")
        y = spec("y", [shape[axis] for axis in perm], "float32")
        layer = Copy(name="c", inputs=("x",), output="y", perm=perm)
        check(build_copy, row, layer, {"x": x, "y": y}, {"x": layout(x), "y": layout(y)})


def test_other_layers_and_other_shapes_are_refused():
    x, y = spec("x", (1, 2, 3, 4, 5), "float32"), spec("y", (2, 1, 3, 5, 4), "float32")
    layer = Copy(name="c", inputs=("x",), output="y", perm=(1, 0, 2, 3, 4))
    layouts = {"x": layout(x), "y": layout(y)}
    assert build_copy(layer, {"x": x, "y": y}, layouts, GENERIC) is None
    assert build_quantize(layer, {"x": x, "y": y}, layouts, GENERIC) is None


def test_key_covers_everything_baked():
    x, y = spec("x", (1, 2, 3, 4), "float32"), spec("y", (1, 2, 3, 4), scale=0.5)
    other = spec("y", (1, 2, 3, 4), scale=0.25)
    layer = Quantize(name="q", inputs=("x",), output="y")

    def key(y, halo=0):
        layouts = {"x": layout(x), "y": layout(y, halo)}
        return build_quantize(layer, {"x": x, "y": y}, layouts, GENERIC).key

    assert key(y) == key(y)
    assert len({key(y), key(other), key(y, 1)}) == 3


# Head split and merge, Swin's window partition (rank 6) and its inverse, a transposition, axes of length 1.
PERMS = [
    ((2, 5, 3, 16), (0, 2, 1, 3)),
    ((1, 2, 3, 2, 3, 20), (0, 1, 3, 2, 4, 5)),
    ((2, 2, 2, 3, 3, 5), (0, 1, 3, 2, 4, 5)),
    ((3, 2, 1, 3, 2, 7), (5, 3, 0, 2, 4, 1)),
    ((37, 18), (1, 0)),
    ((3, 4, 19), (2, 0, 1)),
    ((2, 3, 4, 5, 6), (4, 3, 2, 1, 0)),
    ((1, 1, 1, 5), (3, 1, 0, 2)),
]


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_copy_permutes_any_rank(row, dtype):
    for i, (shape, perm) in enumerate(PERMS if row[0].vnni else PERMS[:3]):
        x = spec("x", shape, dtype)
        y = spec("y", [shape[axis] for axis in perm], dtype)
        layer = Copy(name="c", inputs=("x",), output="y", perm=perm)
        halo, pad = LAYOUTS[i % 4]
        layouts = {"x": layout(x, i % 2, i % 3), "y": layout(y, halo, pad)}
        check(build_copy, row, layer, {"x": x, "y": y}, layouts)
