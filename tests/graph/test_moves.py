from __future__ import annotations

import pytest
from tvm import relax

from graph.modules import assert_rewritten
from tvmcomp.frontend.block import Block
from tvmcomp.graph.moves import Moves

op = relax.op


def module(shape, *steps):
    block = Block()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    y = x
    for kind, value in steps:
        make = op.reshape if kind == "reshape" else op.permute_dims
        y = block.emit(make(y, value))
    return block.finish([x], [y])


CASES = {
    "a unit axis is dropped": (
        (10, 32),
        [
            ("reshape", (1, 10, 1, 4, 8)),
            ("permute", [2, 0, 3, 1, 4]),
            ("reshape", (1, 4, 10, 8)),
        ],
        [("reshape", (1, 10, 4, 8)), ("permute", [0, 2, 1, 3])],
    ),
    "a unit axis is added": (
        (10, 1, 32),
        [("reshape", (10, 4, 8)), ("permute", [1, 0, 2]), ("reshape", (1, 4, 10, 8))],
        [("reshape", (1, 10, 4, 8)), ("permute", [0, 2, 1, 3])],
    ),
    "an axis is split": (
        (10, 3, 32),
        [("reshape", (10, 12, 8)), ("permute", [1, 0, 2]), ("reshape", (3, 4, 10, 8))],
        [("reshape", (10, 3, 4, 8)), ("permute", [1, 2, 0, 3])],
    ),
    "a batch of one is dropped": (
        (1, 10, 32),
        [("reshape", (1, 10, 4, 8)), ("permute", [0, 2, 1, 3]), ("reshape", (4, 10, 8))],
        [("reshape", (10, 4, 8)), ("permute", [1, 0, 2])],
    ),
    "two permutations": (
        (2, 3, 4),
        [("permute", [1, 2, 0]), ("permute", [0, 2, 1])],
        [("permute", [1, 0, 2])],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_moves(name: str):
    shape, before, expected = CASES[name]
    assert_rewritten(Moves, module(shape, *before), module(shape, *expected))


def test_an_axis_that_is_merged_is_not_moved():
    steps = [("reshape", (2, 10, 4, 8)), ("permute", [0, 2, 1, 3]), ("reshape", (8, 10, 8))]
    assert_rewritten(Moves, module((2, 10, 32), *steps), module((2, 10, 32), *steps))
