from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.ir import Expr

from graph.modules import assert_rewritten
from tvmcomp.frontend.block import Block
from tvmcomp.graph.simplify import Simplify

op = relax.op
nn = relax.op.nn


def f32(value: float) -> Expr:
    return relax.const(np.float32(value), "float32")


def ints(*values: int) -> Expr:
    return relax.const(np.array(values), "int64")


def module(build, shape=(1, 8, 6, 6)):
    """main(x, p) = build(block, x, p) with p: [1, C, 1, 1]."""
    block = Block()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    p = relax.Var("p", relax.TensorType((1, shape[1], 1, 1), "float32"))
    result = block.emit(build(block, x, p))
    # Every result reads x and p, so that both stay parameters of main.
    total = block.emit(op.concat([block.emit(op.reshape(v, (-1,))) for v in (x, p)], axis=0))
    return block.finish([x, p], [result, total])


def hard_sigmoid(b, x):
    return b.emit(op.divide(b.emit(op.clip(b.emit(op.add(x, f32(3))), 0.0, 6.0)), f32(6)))


CASES = {
    "crossed clip": (
        lambda b, x, p: op.clip(x, 3.0, -1.0),
        lambda b, x, p: op.clip(x, -1.0, -1.0),
    ),
    "dropout": (
        lambda b, x, p: nn.relu(b.emit(relax.TupleGetItem(b.emit(nn.dropout(x)), 0))),
        lambda b, x, p: nn.relu(x),
    ),
    "add zero": (lambda b, x, p: nn.relu(b.emit(op.add(x, f32(0)))), lambda b, x, p: nn.relu(x)),
    "multiply one": (
        lambda b, x, p: nn.relu(b.emit(op.multiply(f32(1), x))),
        lambda b, x, p: nn.relu(x),
    ),
    "reshape to itself": (
        lambda b, x, p: nn.relu(b.emit(op.reshape(x, (1, 8, 6, 6)))),
        lambda b, x, p: nn.relu(x),
    ),
    "permute nothing": (
        lambda b, x, p: nn.relu(b.emit(op.permute_dims(x, [0, 1, 2, 3]))),
        lambda b, x, p: nn.relu(x),
    ),
    "cast to itself": (
        lambda b, x, p: nn.relu(b.emit(op.astype(x, "float32"))),
        lambda b, x, p: nn.relu(x),
    ),
    "slice all": (
        lambda b, x, p: nn.relu(b.emit(op.strided_slice(x, [2], [0], [2**31], [1]))),
        lambda b, x, p: nn.relu(x),
    ),
    "two reshapes": (
        lambda b, x, p: op.reshape(b.emit(op.reshape(x, (8, 36))), (4, 72)),
        lambda b, x, p: op.reshape(x, (4, 72)),
    ),
    "squeeze": (lambda b, x, p: op.squeeze(x, [0]), lambda b, x, p: op.reshape(x, (8, 6, 6))),
    "flatten": (lambda b, x, p: op.flatten(x), lambda b, x, p: op.reshape(x, (288,))),
    "constant first": (
        lambda b, x, p: op.add(f32(2), x),
        lambda b, x, p: op.add(x, f32(2)),
    ),
    "parameter first": (lambda b, x, p: op.multiply(p, x), lambda b, x, p: op.multiply(x, p)),
    "smaller operand first": (
        lambda b, x, p: op.multiply(b.emit(op.mean(x, [2, 3], keepdims=True)), x),
        lambda b, x, p: op.multiply(x, b.emit(op.mean(x, [2, 3], keepdims=True))),
    ),
    "subtraction keeps its order": (
        lambda b, x, p: op.subtract(f32(1), x),
        lambda b, x, p: op.subtract(f32(1), x),
    ),
    "broadcast": (
        lambda b, x, p: op.divide(x, b.emit(op.broadcast_to(p, (1, 8, 6, 6)))),
        lambda b, x, p: op.divide(x, p),
    ),
    "maximum": (lambda b, x, p: op.maximum(f32(0), x), lambda b, x, p: nn.relu(x)),
    "minimum of maximum": (
        lambda b, x, p: op.minimum(b.emit(op.maximum(x, f32(-1))), f32(2)),
        lambda b, x, p: op.clip(x, -1.0, 2.0),
    ),
    "clip of clip": (
        lambda b, x, p: op.clip(b.emit(op.clip(x, 0, float("inf"))), float("-inf"), 6),
        lambda b, x, p: op.clip(x, 0.0, 6.0),
    ),
    "disjoint clips stay": (
        lambda b, x, p: op.clip(b.emit(op.clip(x, 0.0, 1.0)), 2.0, 3.0),
        lambda b, x, p: op.clip(b.emit(op.clip(x, 0.0, 1.0)), 2.0, 3.0),
    ),
    "pad nothing": (
        lambda b, x, p: nn.relu(b.emit(nn.pad(x, [0] * 8))),
        lambda b, x, p: nn.relu(x),
    ),
    "pad and cut": (
        lambda b, x, p: nn.pad(x, [0] * 4 + [1, -1] + [0] * 2),
        lambda b, x, p: nn.pad(x, [0] * 4 + [1, -1] + [0] * 2),
    ),
    "take what was rotated": (
        lambda b, x, p: op.take(x, ints(4, 5, 0, 1, 2, 3), axis=2),
        lambda b, x, p: op.concat(
            [b.emit(op.strided_slice(x, [2], [a], [e], [1])) for a, e in ((4, 6), (0, 4))], axis=2
        ),
    ),
    "take every other": (
        lambda b, x, p: op.take(x, ints(-6, 2, 4), axis=2),
        lambda b, x, p: op.strided_slice(x, [2], [0], [5], [2]),
    ),
    "take in disorder": (
        lambda b, x, p: op.take(x, ints(4, 0, 5, 1, 2, 3), axis=2),
        lambda b, x, p: op.take(x, ints(4, 0, 5, 1, 2, 3), axis=2),
    ),
    "clip at zero": (lambda b, x, p: op.clip(x, 0, float("inf")), lambda b, x, p: nn.relu(x)),
    "silu": (
        lambda b, x, p: op.multiply(b.emit(op.sigmoid(x)), x),
        lambda b, x, p: nn.silu(x),
    ),
    "another sigmoid gate": (
        lambda b, x, p: op.multiply(x, b.emit(op.sigmoid(p))),
        lambda b, x, p: op.multiply(x, b.emit(op.sigmoid(p))),
    ),
    "hard sigmoid as ONNX defines it": (
        lambda b, x, p: op.clip(b.emit(op.add(b.emit(op.multiply(f32(1 / 6), x)), f32(0.5))), 0, 1),
        lambda b, x, p: hard_sigmoid(b, x),
    ),
    "hard swish as torch decomposes it": (
        lambda b, x, p: op.divide(
            b.emit(op.multiply(x, b.emit(op.clip(b.emit(op.add(x, f32(3))), 0.0, 6.0)))), f32(6)
        ),
        lambda b, x, p: op.multiply(x, hard_sigmoid(b, x)),
    ),
    "mean over the image": (
        lambda b, x, p: op.mean(x, [-1, -2]),
        lambda b, x, p: op.reshape(b.emit(op.mean(x, [2, 3], keepdims=True)), (1, 8)),
    ),
    "adaptive pool": (
        lambda b, x, p: nn.adaptive_avg_pool2d(x, (1, 1)),
        lambda b, x, p: op.mean(x, [2, 3], keepdims=True),
    ),
    "pool over the whole image": (
        lambda b, x, p: nn.avg_pool2d(x, (6, 6)),
        lambda b, x, p: op.mean(x, [2, 3], keepdims=True),
    ),
    "smaller pool stays": (
        lambda b, x, p: nn.avg_pool2d(x, (3, 3)),
        lambda b, x, p: nn.avg_pool2d(x, (3, 3)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rewrites(case):
    before, expected = CASES[case]
    assert_rewritten(Simplify, module(before), module(expected))


def test_a_long_index_in_disorder_is_not_cut_up(monkeypatch):
    """Resizing makes indices of millions; cutting one at each of its steps took minutes."""

    def split(*_):
        raise AssertionError("cut an index that stays a gather")

    monkeypatch.setattr(np, "split", split)

    def build(b, x, p):
        return op.take(x, ints(*(0, 0, 1, 1, 2, 2) * 50), axis=2)

    assert_rewritten(Simplify, module(build), module(build))
