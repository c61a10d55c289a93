from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from graph.modules import assert_rewritten, model_of
from toys import run
from tvmcomp.frontend.block import Block
from tvmcomp.graph.attention import Attention

op = relax.op


def var(name: str, *shape: int) -> relax.Var:
    return relax.Var(name, relax.TensorType(shape, "float32"))


def f32(value: float) -> relax.Expr:
    return relax.const(np.float32(value), "float32")


def product(left, right, outer):
    """main(a, b): outer(left(a) @ permute(right(b)))."""
    block = Block()
    a, b = var("a", 2, 5, 8), var("b", 2, 6, 8)
    turned = block.emit(op.permute_dims(block.emit(right(b)), [0, 2, 1]))
    y = block.emit(op.matmul(block.emit(left(a)), turned))
    for make in outer:
        y = block.emit(make(y))
    return block.finish([a, b], [y])


def keep(x):
    return x


def test_factors_of_operands_become_one_of_the_product():
    before = product(
        lambda a: op.multiply(a, f32(0.5)),
        lambda b: op.divide(b, f32(4)),
        [lambda y: op.multiply(y, f32(2))],
    )
    after = product(keep, keep, [lambda y: op.multiply(y, f32(0.25))])
    assert_rewritten(Attention, before, after, inputs=2)


def test_a_divisor_is_a_factor():
    before = product(keep, keep, [lambda y: op.divide(y, f32(8))])
    after = product(keep, keep, [lambda y: op.multiply(y, f32(0.125))])
    assert_rewritten(Attention, before, after, inputs=2)


def test_merged_batch_axes_come_apart():
    def module(merged: bool):
        block = Block()
        a, b = var("a", 2, 3, 5, 8), var("b", 2, 3, 8, 6)
        if merged:
            parts = [block.emit(op.reshape(x, (6, *s))) for x, s in ((a, (5, 8)), (b, (8, 6)))]
            return block.finish([a, b], [block.emit(op.matmul(*parts))])
        y = block.emit(op.matmul(a, b))
        return block.finish([a, b], [block.emit(op.reshape(y, (6, 5, 6)))])

    assert_rewritten(Attention, module(True), module(False), inputs=2)


@pytest.mark.parametrize("causal", [None, "TopLeft", "BottomRight"])
def test_relax_attention_is_spelled_out(causal: str | None):
    block = Block()
    q, k, v = var("q", 1, 4, 2, 8), var("k", 1, 6, 2, 8), var("v", 1, 6, 2, 3)
    bias = var("bias", 1, 2, 4, 6)
    y = block.emit(op.nn.attention(q, k, v, bias, scale=0.3, causal_mask=causal))
    model = Attention(model_of(block.finish([q, k, v, bias], [y]), inputs=4)).run()
    rng = np.random.default_rng(0)
    arrays = {
        str(x.name): rng.standard_normal([int(d) for d in x.ty.shape]).astype(np.float32)
        for x in (q, k, v, bias)
    }
    (got,) = run(model)(arrays).values()
    heads = [arrays[name].transpose(0, 2, 1, 3) for name in "qkv"]
    scores = heads[0] @ heads[1].transpose(0, 1, 3, 2) * 0.3 + arrays["bias"]
    seen = np.tril(np.ones((4, 6)), {None: 9, "TopLeft": 0, "BottomRight": 2}[causal]) > 0
    weights = np.exp(scores) * seen
    expected = weights / weights.sum(-1, keepdims=True) @ heads[2]
    np.testing.assert_allclose(got, expected.transpose(0, 2, 1, 3), rtol=2e-5)
