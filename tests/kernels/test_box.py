"""Slice, Pad and Concat along any axis against their definition."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import check, every_isa, layout, random_values, spec
from tvmcomp.graph.layers import Concat, Pad, Slice
from tvmcomp.kernels.box import build_box_concat, build_pad, build_slice

RNG = np.random.default_rng(0)


def places(tensors, pad=0):
    return {name: layout(tensor, 0, pad) for name, tensor in tensors.items()}


@every_isa
def test_slices(row):
    for shape, begin, strides, out, pad in [
        ((1, 9, 70), (0, 0, 0), (1, 1, 1), (1, 1, 70), 0),
        ((2, 3, 8, 40), (1, 0, 7, 3), (1, 2, -2, 1), (1, 2, 4, 33), 5),
        ((2, 2, 3, 4, 19), (0, 1, 0, 1, 18), (1, 1, 1, 2, -3), (2, 1, 3, 2, 6), 0),
        ((5, 100), (2, 50), (1, 1), (3, 50), 2),
    ]:
        tensors = {"x": spec("x", shape), "y": spec("y", out)}
        layer = Slice(name="s", inputs=("x",), output="y", begin=begin, strides=strides)
        check(build_slice, row, layer, tensors, places(tensors, pad))


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_pads(row, dtype):
    for shape, before, out, pad in [
        ((1, 9, 70), (0, 2, 0), (1, 12, 70), 0),
        ((2, 3, 4, 19), (0, 1, 2, 3), (2, 5, 6, 25), 4),
        ((2, 2, 1, 3, 5), (1, 0, 0, 1, 0), (3, 2, 2, 4, 5), 0),
    ]:
        tensors = {"x": spec("x", shape, dtype), "y": spec("y", out, dtype)}
        layer = Pad(name="p", inputs=("x",), output="y", before=before, value=-7 & 127)
        check(build_pad, row, layer, tensors, places(tensors, pad))


@every_isa
@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4])
def test_concat_along_every_axis(row, axis):
    shapes = []
    for size in (2, 1, 3):
        shape = [2, 3, 2, 5, 21]
        shape[axis] = size
        shapes.append(tuple(shape))
    whole = list(shapes[0])
    whole[axis] = 6
    tensors = {name: spec(name, shape) for name, shape in zip("ac", shapes[::2], strict=True)}
    tensors["y"] = spec("y", whole)
    constant = random_values(RNG, spec("b", shapes[1]))
    table = RNG.permutation(256).astype(np.uint8)
    layer = Concat(
        name="c", inputs=("a", "c"), output="y", tables=(table, None, None), axis=axis,
        constants=(None, constant, None),
    )  # fmt: skip
    check(build_box_concat, row, layer, tensors, places(tensors, 3))


@every_isa
def test_a_class_token_in_front(row):
    tensors = {"x": spec("x", (1, 16, 96)), "y": spec("y", (1, 17, 96))}
    constant = random_values(RNG, spec("b", (1, 1, 96)))
    layer = Concat(name="c", inputs=("x",), output="y", axis=1, constants=(constant, None))
    check(build_box_concat, row, layer, tensors, places(tensors))
