"""Embedding kernels against their definition, for every index a client may send."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import check, every_isa, layout, spec
from tvmcomp.graph.layers import Embedding
from tvmcomp.kernels.embedding import build_embedding

RNG = np.random.default_rng(0)
WILD = [-(2**31), -(10**6), -1000, -11, -10, -1, 0, 3, 9, 10, 1000, 10**6, 2**31 - 1]


@every_isa
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("result", ["uint8", "int8", "float32"])
def test_any_index_reads_a_row_of_the_table(row, dtype, result):
    def weights(channels):
        wide = RNG.integers(-255, 256, (10, channels)).astype(np.int16)
        return wide if channels == 130 else wide.astype(np.int8)

    for channels, pad in ((7, 0), (70, 2), (130, 0)):
        x, y = spec("x", (2, 13), dtype), spec("y", (2, 13, channels), result, zero=9)
        indices = np.array([WILD, WILD[::-1]], dtype)
        if dtype == "int64":
            indices[0, :2] = np.iinfo(np.int64).min, np.iinfo(np.int64).max
        layer = Embedding(
            name="e", inputs=("x",), output="y",
            weight=weights(channels),
            scale=RNG.uniform(0.1, 2, 10).astype(np.float32),
        )  # fmt: skip
        layouts = {"x": layout(x, 0, pad), "y": layout(y, pad, pad)}
        check(build_embedding, row, layer, {"x": x, "y": y}, layouts, arrays=[indices])
