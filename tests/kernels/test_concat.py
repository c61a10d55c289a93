"""Concat kernels against their definition, in every layout and on every ISA row."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import check, every_isa, layout, random_values, spec
from tvmcomp.graph.layers import Concat
from tvmcomp.kernels.concat import build_concat
from tvmcomp.kernels.vector import GENERIC


def case(dtype, channels, size=(2, 3, 4), halo=0, pad=0, tabled=()):
    rng = np.random.default_rng(sum(channels))
    names = tuple(f"x{i}" for i in range(len(channels)))
    tensors = {
        name: spec(name, (*size, count), dtype, zero=i)
        for i, (name, count) in enumerate(zip(names, channels, strict=True))
    }
    tensors["y"] = spec("y", (*size, sum(channels)), dtype, zero=71)
    tables = tuple(
        random_values(rng, spec("t", (256,), dtype)) if i in tabled else None
        for i in range(len(channels))
    )
    layer = Concat(name="c", inputs=names, output="y", tables=tables if tabled else ())
    layouts = {
        name: layout(tensors[name], (i + halo) % 3, (i * pad) % 7) for i, name in enumerate(names)
    }
    layouts["y"] = layout(tensors["y"], halo, pad)
    return layer, tensors, layouts


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_concat(row, dtype):
    for channels, halo, pad in [
        ((1, 1), 0, 0),
        ((3, 70, 5), 1, 0),
        ((16, 24), 2, 8),
        ((65,), 0, 3),
    ]:
        check(build_concat, row, *case(dtype, channels, halo=halo, pad=pad))


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_concat_through_tables(row, dtype):
    for tabled in [(0,), (1, 2), (0, 1, 2)]:
        check(build_concat, row, *case(dtype, (5, 66, 9), halo=1, pad=2, tabled=tabled))


def test_shapes_that_do_not_add_up_are_refused():
    layer, tensors, layouts = case("uint8", (3, 4))
    layouts["y"] = layout(spec("y", (2, 3, 4, 8)))
    assert build_concat(layer, tensors, layouts, GENERIC) is None
