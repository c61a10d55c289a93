"""Every spelling of layer norm and RMS norm becomes the operator, and computes what it did."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from build.graphs import Net, simulate
from tvmcomp.frontend.block import op_name
from tvmcomp.graph.canonical import CANONICAL
from tvmcomp.graph.norms import Norms
from tvmcomp.graph.simplify import Simplify
from tvmcomp.model import Model

op = relax.op


def ops(model: Model) -> list[str]:
    return [op_name(b.value) for block in model.module["main"].body.blocks for b in block.bindings]


def number(value: float) -> relax.Expr:
    return relax.const(np.float32(value))


def root(net: Net, mean: relax.Expr, value: relax.Expr, spelling: str) -> relax.Expr:
    spread = net.emit(op.add(mean, number(1e-5)), "spread")
    if spelling == "rsqrt":
        return net.emit(op.multiply(value, net.emit(op.rsqrt(spread), "r")), "normed")
    if spelling == "power":
        return net.emit(op.multiply(net.emit(op.power(spread, number(-0.5)), "r"), value), "normed")
    if spelling == "inverse":
        inverse = net.emit(op.divide(number(1), net.emit(op.sqrt(spread), "q")), "r")
        return net.emit(op.multiply(value, inverse), "normed")
    return net.emit(op.divide(value, net.emit(op.sqrt(spread), "r")), "normed")


def squared(net: Net, value: relax.Expr, spelling: str) -> relax.Expr:
    made = op.multiply(value, value) if spelling == "rsqrt" else op.power(value, number(2))
    return net.emit(made, "squared")


@pytest.mark.parametrize("spelling", ["sqrt", "rsqrt", "power", "inverse"])
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("weights", ["both", "gamma", "none"])
def test_a_decomposed_norm(spelling: str, axis: int, kind: str, weights: str) -> None:
    shape = (2, 6, 3, 8)
    net = Net(shape)
    length = shape[axis]
    value: relax.Expr = net.x
    if kind == "layer":
        center = net.emit(op.mean(net.x, [axis], True), "center")
        value = net.emit(op.subtract(net.x, center), "value")
        again = net.emit(op.subtract(net.x, center), "again") if spelling == "sqrt" else value
    else:
        again = value
    mean = net.emit(op.mean(squared(net, again, spelling), [axis], True), "mean")
    result = root(net, mean, value, spelling)
    along = (length, 1, 1) if axis == 1 else (length,)
    if weights != "none":
        gamma = net.param("n.weight", net.rng.standard_normal(along).astype(np.float32))
        result = net.emit(op.multiply(result, gamma), "scaled")
    if weights == "both":
        beta = net.param("n.bias", net.rng.standard_normal(along).astype(np.float32))
        result = net.emit(op.add(result, beta), "shifted")
    model = net.model(result)
    rewritten = Norms(model).run()
    word = "nn.layer_norm" if kind == "layer" else "nn.rms_norm"
    if kind == "rms" and axis == 1:
        assert word not in ops(rewritten), "TVM has none over this axis"
    else:
        # RMS norm has no summand.
        assert ops(rewritten) == [word, *["add"] * (kind == "rms" and weights == "both")]
    x = net.rng.standard_normal(shape).astype(np.float32)
    (got,), (want,) = simulate(rewritten, x), simulate(model, x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_what_is_no_norm_is_left_alone() -> None:
    net = Net((2, 6, 8))
    center = net.emit(op.mean(net.x, [-1], True), "center")
    other = net.emit(op.mean(net.x, [1], True), "other")
    value = net.emit(op.subtract(net.x, center), "value")
    wrong = net.emit(op.subtract(net.x, other), "wrong")
    results = []
    for numerator, denominator in ((value, net.x), (wrong, value), (net.x, value)):
        mean = net.emit(op.mean(squared(net, denominator, "power"), [-1], True), "mean")
        results.append(root(net, mean, numerator, "sqrt"))
    assert not {"nn.layer_norm", "nn.rms_norm"} & set(ops(Norms(net.model(*results)).run()))


def test_a_factor_along_another_axis_or_of_a_shared_norm_stays_outside() -> None:
    net = Net((2, 8, 8))
    ones = net.param("g", np.ones(8, np.float32))
    norm = net.emit(op.nn.layer_norm(net.x, ones, ones, axes=[-1]), "norm")
    across = net.param("across", net.rng.standard_normal((8, 1)).astype(np.float32))
    assert "multiply" in ops(Norms(net.model(net.emit(op.multiply(norm, across), "m"))).run())
    scaled = net.emit(op.multiply(norm, ones), "scaled")
    assert "multiply" in ops(Norms(net.model(net.emit(op.add(scaled, norm), "sum"))).run())


def test_a_norm_over_the_channels_of_images_moves_with_them() -> None:
    net = Net((1, 3, 8, 8))
    weight = net.param("w", net.rng.standard_normal((6, 3, 3, 3)).astype(np.float32))
    conv = net.emit(op.nn.conv2d(net.x, weight, padding=1), "conv")
    gamma, beta = (net.param(n, net.rng.standard_normal(6).astype(np.float32)) for n in "gb")
    norm = net.emit(op.nn.layer_norm(conv, gamma, beta, axes=[1]), "norm")
    again = net.param("v", net.rng.standard_normal((4, 6, 1, 1)).astype(np.float32))
    model = net.model(net.emit(op.nn.conv2d(norm, again), "last"))
    canonical = model
    for rewriter in CANONICAL:
        canonical = rewriter(canonical).run()
    names = ops(canonical)
    assert names.count("permute_dims") == 2
    x = net.rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
    (got,), (want,) = simulate(canonical, x), simulate(model, x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_splits_and_constant_gathers_are_slices() -> None:
    net = Net((2, 9, 6))
    parts = net.emit(op.split(net.x, [2, 5], 1), "parts")
    first, last = (net.emit(relax.TupleGetItem(parts, i), f"p{i}") for i in (0, 2))
    row = net.emit(op.take(net.x, relax.const(np.int64(-1)), axis=1), "row")
    odd = net.emit(op.take(net.x, relax.const(np.array([1, 3, 5])), axis=2), "odd")
    mixed = net.emit(op.take(net.x, relax.const(np.array([4, 1, 3])), axis=2), "mixed")
    model = net.model(first, last, row, odd, mixed)
    rewritten = Simplify(model).run()
    assert sorted(ops(rewritten)) == ["reshape", *["strided_slice"] * 4, "take"]
    x = net.rng.standard_normal((2, 9, 6)).astype(np.float32)
    wanted = (x[:, :2], x[:, 5:], x[:, -1], x[:, :, 1::2], x[:, :, [4, 1, 3]])
    for got, want in zip(simulate(rewritten, x), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
