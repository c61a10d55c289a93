"""The default schedule computes what TVM's legalization says, threaded and vectorized."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from build.graphs import Net
from tvmcomp.build.lower import lower
from tvmcomp.graph.layers import Opaque
from tvmcomp.schedule.fallback import build_opaque, default_schedule
from tvmcomp.target import Target

op = relax.op


def opaque(value: relax.Var, net: Net) -> Opaque:
    (layer,) = lower(net.model(value)).layers
    assert isinstance(layer, Opaque)
    return layer


def call(layer: Opaque, x: np.ndarray, size: int) -> np.ndarray:
    kernel = build_opaque(layer)
    target = Target.load("host").tvm_target()
    function = kernel.func.with_attr("global_symbol", "f")
    library = tvm.tirx.build(tvm.IRModule({"f": function}), target=target)
    start = 64 + x.nbytes + (-x.nbytes % 64)
    arena = np.full(start + 4 * size + 64, 0xAA, np.uint8)
    arena[64 : 64 + x.nbytes] = x.reshape(-1).view(np.uint8)
    memory = tvm.runtime.tensor(arena)
    constants = (
        () if kernel.constants is None else (tvm.runtime.tensor(kernel.constants), np.int64(0))
    )
    library["f"](memory, 64, *constants, memory, start)
    after = memory.numpy()
    assert (after[:64] == 0xAA).all()
    assert (after[start + 4 * size :] == 0xAA).all()
    return after[start : start + 4 * size].view(np.float32)


@pytest.mark.parametrize("channels", [16, 8, 7])
def test_elementwise_with_a_constant(channels: int):
    net = Net((2, 5, 3, channels))
    weight = np.random.default_rng(1).standard_normal(channels).astype(np.float32)
    layer = opaque(net.emit(op.multiply(net.x, net.param("w", weight)), "y"), net)
    x = np.random.default_rng(0).standard_normal((2, 5, 3, channels)).astype(np.float32)
    np.testing.assert_array_equal(call(layer, x, x.size), (x * weight).reshape(-1))


def test_reductions_over_outer_and_inner_axes():
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 16)).astype(np.float32)
    for axes in ([1, 2], [3], [1, 2, 3]):
        net = Net(x.shape)
        layer = opaque(net.emit(op.sum(net.x, axes, True), "y"), net)
        expected = x.astype(np.float64).sum(tuple(axes)).reshape(-1)
        np.testing.assert_allclose(call(layer, x, expected.size), expected, rtol=2e-5, atol=1e-5)


def test_several_blocks_in_one_function():
    net = Net((1, 4, 4, 24))
    layer = opaque(net.emit(op.nn.softmax(net.x), "y"), net)
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 24)).astype(np.float32)
    e = np.exp(x - x.max(-1, keepdims=True))
    expected = e / e.sum(-1, keepdims=True)
    np.testing.assert_allclose(call(layer, x, x.size), expected.reshape(-1), rtol=1e-5, atol=1e-7)


def test_the_schedule_is_threaded_and_vectorized():
    net = Net((1, 8, 8, 32))
    text = str(default_schedule(opaque(net.emit(op.exp(net.x), "y"), net).function))
    assert "T.parallel" in text
    assert "T.vectorized(T.int64(16))" in text


@pytest.mark.parametrize("width", [8, 6, 7, 1])
def test_a_reduction_keeps_several_sums_at_once(width: int):
    net = Net((1, 3, width, 5))
    y = net.param("y", np.random.default_rng(2).standard_normal((1, 3, 5, 16)).astype(np.float32))
    layer = opaque(net.emit(op.matmul(net.x, y), "mm"), net)
    x = np.random.default_rng(0).standard_normal((1, 3, width, 5)).astype(np.float32)
    expected = (x.astype(np.float64) @ net.params["y"]).reshape(-1)
    np.testing.assert_allclose(call(layer, x, expected.size), expected, rtol=1e-5, atol=1e-5)
    text = str(default_schedule(layer.function))
    assert ("T.unroll" in text) == (width > 1)


def test_layers_that_differ_in_names_and_constants_alone_share_a_function():
    def layer(name: str, factor: float, channels: int = 8) -> Opaque:
        net = Net((1, 2, 2, channels))
        weight = np.full(channels, factor, np.float32)
        return opaque(net.emit(op.multiply(net.x, net.param("w", weight)), name), net)

    first, second, other = (
        build_opaque(layer(*arguments)) for arguments in (("a", 2.0), ("b", 3.0), ("c", 2.0, 16))
    )
    assert first.key == second.key != other.key
    assert first.func.same_as(second.func)
    x = np.ones((1, 2, 2, 8), np.float32)
    assert (call(layer("a", 2.0), x, x.size) == 2).all()
    assert (call(layer("b", 3.0), x, x.size) == 3).all()
