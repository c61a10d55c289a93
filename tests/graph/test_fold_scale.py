from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tvm import relax

from toys import Toy, run
from tvmcomp.frontend.block import op_name
from tvmcomp.graph.fold_scale import FoldScale
from tvmcomp.model import Model

op = relax.op
Steps = Callable[[Toy, relax.Expr], relax.Expr]


def gamma(toy: Toy, *shape: int) -> relax.Expr:
    return toy.param("gamma", toy.rng.uniform(0.5, 2, shape).astype(np.float32))


def network(kind: str, steps: Steps) -> Model:
    toy = Toy()
    x = toy.input("x", 2, 4, 5, 6)
    layer = toy.conv("fc", x, 7) if kind == "conv2d" else toy.dense("fc", x, 7)
    return toy.model(toy.emit("y", steps(toy, layer)))


def operators(model: Model) -> list[str]:
    bindings = [b for block in model.module["main"].body.blocks for b in block.bindings]
    return [name for b in bindings if (name := op_name(b.value))]


FOLDED: dict[str, Steps] = {
    "per channel": lambda toy, y: op.multiply(y, gamma(toy, 7)),
    "per channel of an image": lambda toy, y: op.multiply(y, gamma(toy, 1, 1, 7)),
    "divisor": lambda toy, y: op.divide(y, gamma(toy, 7)),
    "number": lambda toy, y: op.multiply(y, relax.const(np.float32(-0.25))),
    "affine": lambda toy, y: op.add(
        toy.emit("m", op.multiply(y, gamma(toy, 7))), toy.param("d", toy.normal(7))
    ),
}
KEPT: dict[str, Steps] = {
    "per row": lambda toy, y: op.multiply(y, gamma(toy, 5, 1)),
    "of another shape": lambda toy, y: op.multiply(y, gamma(toy, 1, 2, 4, 5, 7)),
    "an activation's number": lambda toy, y: op.add(y, relax.const(np.float32(3))),
    "read twice": lambda toy, y: op.add(toy.emit("m", op.multiply(y, gamma(toy, 7))), y),
    "zero": lambda toy, y: op.multiply(y, toy.param("z", np.zeros(7, np.float32))),
    "not finite": lambda toy, y: op.multiply(y, toy.param("n", np.full(7, np.inf, np.float32))),
}


@pytest.mark.parametrize("kind", ["matmul", "nn.conv2d"])
@pytest.mark.parametrize("case", FOLDED)
def test_factors_and_summands_join_the_layer(case: str, kind: str):
    model = network(kind.removeprefix("nn."), FOLDED[case])
    folded = FoldScale(model).run()
    assert operators(folded) == [kind, "add"]
    assert set(folded.params) == {"fc.weight", "fc.bias"}
    x = {"x": np.random.default_rng(1).standard_normal((2, 4, 5, 6)).astype(np.float32)}
    (got,), (want,) = run(folded)(x).values(), run(model)(x).values()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", KEPT)
def test_others_stay(case: str):
    model = network("matmul", KEPT[case])
    assert FoldScale(model).run() is model


def test_a_shared_weight_stays():
    toy = Toy()
    x, w = toy.input("x", 2, 4), toy.param("w", toy.normal(4, 4))
    first = toy.emit("first", op.matmul(x, w))
    y = toy.emit("scaled", op.multiply(toy.emit("second", op.matmul(first, w)), gamma(toy, 4)))
    model = toy.model(y)
    assert FoldScale(model).run() is model
