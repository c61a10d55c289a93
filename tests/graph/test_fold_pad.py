from __future__ import annotations

import pytest
from tvm import relax

from graph.modules import assert_rewritten
from tvmcomp.frontend.block import Block
from tvmcomp.graph.fold_pad import FoldPad

nn = relax.op.nn


def module(build):
    """main(x, w) = build(x, w): x [1, 3, 8, 8], w [4, 3, 3, 3]."""
    block = Block()
    x = relax.Var("x", relax.TensorType((1, 3, 8, 8), "float32"))
    w = relax.Var("w", relax.TensorType((4, 3, 3, 3), "float32"))
    return block.finish([x, w], [block.emit(build(block, x, w))])


def padded(width, **options):
    return module(lambda b, x, w: nn.conv2d(b.emit(nn.pad(x, width, **options)), w, 2, 1))


def test_padding_becomes_the_convolutions():
    # pad: (before, after) per axis; conv2d: top, left, bottom, right.
    expected = module(lambda b, x, w: nn.conv2d(x, w, 2, (1 + 1, 1 + 3, 1 + 2, 1 + 4)))
    assert_rewritten(FoldPad, padded([0, 0, 0, 0, 1, 2, 3, 4]), expected)


@pytest.mark.parametrize(
    "before",
    [
        padded([0, 0, 0, 0, 1, 1, 1, 1], pad_value=1.0),
        padded([0, 0, 0, 0, 1, 1, 1, 1], pad_mode="reflect"),
        padded([1, 0, 0, 0, 1, 1, 1, 1]),
        padded([0, 0, 0, 0, -1, 1, 1, 1]),
    ],
    ids=["another value", "reflected", "of the batch", "cropped"],
)
def test_other_padding_stays(before):
    assert_rewritten(FoldPad, before, before)
