from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from graph.modules import assert_rewritten
from tvmcomp.frontend.block import Block
from tvmcomp.graph.split_dense import SplitDense

op = relax.op


def var(name: str, *shape: int) -> relax.Var:
    return relax.Var(name, relax.TensorType(shape, "float32"))


def whole(cut: str):
    """One layer of 12 outputs as [3, T, 2, 2], cut into three."""
    b = Block()
    x, w, bias = var("x", 5, 8), var("qkv.weight", 8, 12), var("qkv.bias", 12)
    y = b.emit(op.add(b.emit(op.matmul(x, w)), bias))
    y = b.emit(op.reshape(y, (5, 3, 2, 2)))
    y = b.emit(op.permute_dims(y, [1, 0, 2, 3]))
    begins = (0, 1, 2) if cut == "from the front" else (-3, -2, -1)
    results = [b.emit(op.strided_slice(y, [0], [begin], [i + 1])) for i, begin in enumerate(begins)]
    return b.finish([x, w, bias], results)


def parts():
    b = Block()
    x = var("x", 5, 8)
    params, results = [], []
    for i in range(3):
        params += [var(f"qkv.{i}.weight", 8, 4), var(f"qkv.{i}.bias", 4)]
        y = b.emit(op.add(b.emit(op.matmul(x, params[-2])), params[-1]))
        y = b.emit(op.permute_dims(b.emit(op.reshape(y, (5, 1, 2, 2))), [1, 0, 2, 3]))
        results.append(y)
    return b.finish([x, *params], results)


@pytest.mark.parametrize("cut", ["from the front", "from the back"])
def test_a_cut_result_is_a_layer_per_part(cut: str):
    after = assert_rewritten(SplitDense, whole(cut), parts())
    assert after.params["qkv.1.weight"].flags.c_contiguous
    assert np.unique(np.stack([after.params[f"qkv.{i}.bias"] for i in range(3)])).size == 12


def test_a_cut_across_the_parts_of_an_output_axis_stays():
    b = Block()
    x, w = var("x", 5, 8), var("w", 8, 12)
    y = b.emit(op.reshape(b.emit(op.matmul(x, w)), (5, 2, 6)))
    module = b.finish([x, w], [b.emit(op.strided_slice(y, [2], [0], [3]))])
    assert_rewritten(SplitDense, module, module)


def test_a_cut_of_rows_stays():
    b = Block()
    x, w = var("x", 6, 8), var("w", 8, 12)
    y = b.emit(op.matmul(x, w))
    module = b.finish([x, w], [b.emit(op.strided_slice(y, [0], [0], [3]))])
    assert_rewritten(SplitDense, module, module)
