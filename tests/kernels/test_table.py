"""Table kernels against their definition, in every layout and on every ISA row."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import check, every_isa, layout, random_values, spec
from tvmcomp.graph.layers import Table
from tvmcomp.kernels.table import build_table


@every_isa
@pytest.mark.parametrize("dtypes", [("uint8", "uint8"), ("int8", "int8"), ("int8", "uint8")])
def test_table(row, dtypes):
    rng = np.random.default_rng(3)
    for shape, halo, pad, pitch in [
        ((1, 1, 1, 1), 0, 0, 0),
        ((2, 3, 4, 7), 1, 0, 0),
        ((1, 5, 2, 67), 2, 3, 3),
        ((1, 2, 3, 130), 0, 0, 14),
        ((3, 200), 0, 0, 0),
    ]:
        x, y = spec("x", shape, dtypes[0]), spec("y", shape, dtypes[1], zero=99)
        table = random_values(rng, spec("t", (256,), dtypes[1]))
        layer = Table(name="t", inputs=("x",), output="y", table=table)
        layouts = {"x": layout(x, halo % 2, pitch), "y": layout(y, halo, pad)}
        check(build_table, row, layer, {"x": x, "y": y}, layouts)


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_every_code_once(row, dtype):
    x, y = spec("x", (1, 1, 1, 256), dtype), spec("y", (1, 1, 1, 256), "uint8")
    table = np.random.default_rng(0).permutation(256).astype(np.uint8)
    layer = Table(name="t", inputs=("x",), output="y", table=table)
    codes = np.arange(256).reshape(x.shape).astype(np.uint8).view(dtype)
    layouts = {"x": layout(x), "y": layout(y)}
    got = check(build_table, row, layer, {"x": x, "y": y}, layouts, arrays=[codes])
    assert sorted(got.ravel().tolist()) == list(range(256))
