"""Which groups of a canonical function become which layer, and with which numbers."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from build.graphs import Net
from tvmcomp.build.lower import lower
from tvmcomp.compress.reference import run
from tvmcomp.graph.layers import (
    Concat,
    Dequantize,
    FloatConv,
    IntAdd,
    IntAvgPool,
    IntConv,
    IntMul,
    LayerGraph,
    MaxPool,
    Opaque,
    Quantize,
    Table,
    View,
)

op = relax.op


def kinds(graph: LayerGraph) -> list[type]:
    return [type(layer) for layer in graph.layers]


def quantized_input(net: Net, scale: float = 0.02, zero: int = 128) -> relax.Var:
    nhwc = net.emit(op.permute_dims(net.x, [0, 2, 3, 1]), "nhwc")
    return net.quantize(nhwc, scale, zero, "in")


def test_a_quantized_residual_block_is_one_integer_layer_per_convolution():
    net = Net((1, 3, 8, 8))
    a = quantized_input(net)
    b = net.quantize(net.emit(op.nn.relu(net.conv(a, 16, 3, "c1")), "r1"), 0.03, 0, "r1")
    total = net.emit(op.add(net.conv(b, 16, 3, "c2"), b), "sum")
    c = net.quantize(net.emit(op.nn.relu(total), "r2"), 0.06, 7, "r2")
    graph = lower(net.model(c))
    assert kinds(graph) == [Quantize, IntConv, IntConv, Dequantize]
    first, second = graph.layers[1:3]
    assert graph.layers[0].perm == (0, 2, 3, 1)
    assert second.inputs == ("r1.q", "r1.q")
    assert second.residual_scale == np.float32(np.float32(0.03) / np.float32(0.06))
    # relu's zero as a code of the output, saturation above
    assert (first.low, first.high, second.low, second.high) == (0, 255, 7, 255)


def test_the_bias_absorbs_neither_zero_point():
    net = Net((1, 4, 4, 8))
    a = net.quantize(net.x, 0.05, 100, "in")
    y = net.quantize(net.conv(a, 4, 1, "c"), 0.25, 90, "y")
    model = net.model(y)
    (_, conv, _) = lower(model).layers
    scale = model.params["c.weight.scale"].astype(np.float64)
    expected = (scale * np.float64(np.float32(0.05)) / np.float64(np.float32(0.25))).astype(
        np.float32
    )
    np.testing.assert_array_equal(conv.multiplier, expected)
    bias = model.params["c.bias"] / np.float64(np.float32(0.25))
    np.testing.assert_allclose(conv.bias, bias, rtol=1e-6)


def test_the_bias_absorbs_the_residuals_zero_point():
    net = Net((1, 4, 4, 8))
    a = net.quantize(net.x, 0.05, 100, "in")
    with_residual = net.emit(op.add(net.conv(a, 8, 1, "c"), a), "sum")
    model = net.model(net.quantize(with_residual, 0.25, 90, "y"))
    (_, conv, _) = lower(model).layers
    expected = model.params["c.bias"] / np.float64(np.float32(0.25)) - conv.residual_scale * 100
    np.testing.assert_allclose(conv.bias, expected, rtol=1e-6)


def test_relu6_becomes_two_code_limits():
    net = Net((1, 4, 4, 8))
    a = net.quantize(net.x, 0.05, 100, "in")
    clipped = net.emit(op.clip(net.conv(a, 8, 1, "c"), 0, 6), "clip")
    (_, conv, _) = lower(net.model(net.quantize(clipped, 0.1, 3, "y"))).layers
    assert (conv.low, conv.high) == (3, 63)


def test_of_two_convolutions_into_one_add_the_later_takes_it():
    net = Net((1, 4, 4, 8))
    left = net.conv(net.x, 8, 1, "left", quantized=False)
    right = net.conv(net.x, 8, 1, "right", quantized=False)
    out = net.emit(op.nn.relu(net.emit(op.add(right, left), "sum")), "relu")
    graph = lower(net.model(out))
    assert kinds(graph) == [FloatConv, FloatConv]
    assert graph.layers[0].inputs == ("x",)
    assert graph.layers[1].name == "right"
    assert graph.layers[1].inputs == ("x", "left.add")
    assert (graph.layers[0].low, graph.layers[1].low) == (-np.inf, 0.0)


def test_an_intermediate_with_two_readers_ends_the_fusion():
    net = Net((1, 4, 4, 8))
    conv = net.conv(net.x, 8, 1, "c", quantized=False)
    relu = net.emit(op.nn.relu(conv), "relu")
    graph = lower(net.model(net.emit(op.subtract(conv, relu), "sub")))
    assert kinds(graph)[0] is FloatConv
    assert graph.layers[0].low == -np.inf
    assert Opaque in kinds(graph)


def test_any_unary_chain_between_pairs_is_one_table():
    net = Net((1, 4, 4, 8))
    a = net.quantize(net.x, 0.05, 100, "in")
    shifted = net.emit(op.clip(net.emit(op.add(a, relax.const(3.0)), "plus"), 0, 6), "clip")
    swish = net.emit(op.multiply(a, net.emit(op.divide(shifted, relax.const(6.0)), "sig")), "hs")
    graph = lower(net.model(net.quantize(swish, 0.041, 20, "y")))
    assert kinds(graph) == [Quantize, Table, Dequantize]
    x = (np.arange(256) - 100) * np.float64(np.float32(0.05))
    y = x * np.clip(x + 3, 0, 6) / 6 / np.float64(np.float32(0.041))
    assert np.abs(graph.layers[1].table - np.clip(np.rint(y) + 20, 0, 255)).max() <= 1
    assert np.mean(graph.layers[1].table == np.clip(np.rint(y) + 20, 0, 255)) > 0.98


def test_arithmetic_pools_and_moves_stay_on_codes():
    net = Net((1, 8, 8, 16))
    a = net.quantize(net.x, 0.05, 100, "in")
    pooled = net.emit(op.nn.max_pool2d(a, (2, 2), (2, 2), layout="NHWC"), "pool")
    p = net.quantize(pooled, 0.05, 100, "pool")
    gate = net.quantize(net.emit(op.mean(p, [1, 2], True), "gap"), 0.03, 90, "gap")
    scaled = net.quantize(net.emit(op.multiply(p, gate), "scale"), 0.07, 50, "scale")
    total = net.quantize(net.emit(op.add(scaled, p), "sum"), 0.09, 60, "sum")
    both = net.quantize(net.emit(op.concat([total, scaled], 3), "cat"), 0.09, 60, "cat")
    flat = net.quantize(net.emit(op.reshape(both, (1, 512)), "flat"), 0.09, 60, "flat")
    graph = lower(net.model(flat))
    assert kinds(graph) == [
        *(Quantize, MaxPool, IntAvgPool, IntMul, IntAdd, Concat, View, Dequantize)
    ]
    concat = graph.layers[5]
    assert concat.tables[0] is None
    assert concat.tables[1] is not None


def test_a_move_between_different_scales_is_followed_by_a_table():
    net = Net((1, 8, 8, 16))
    a = net.quantize(net.x, 0.05, 100, "in")
    pooled = net.emit(op.nn.max_pool2d(a, (2, 2), (2, 2), layout="NHWC"), "pool")
    graph = lower(net.model(net.quantize(pooled, 0.06, 90, "y")))
    assert kinds(graph) == [Quantize, MaxPool, Table, Dequantize]
    assert graph.tensors["y.q.moved"].qparams == graph.tensors["in.q"].qparams


def test_what_nothing_claims_is_fused_by_tvm_and_reads_its_constants():
    net = Net((1, 4, 4, 8))
    weight = net.param("w", np.arange(8, dtype=np.float32))
    y = net.emit(op.nn.softmax(net.emit(op.multiply(net.x, weight), "scaled")), "soft")
    graph = lower(net.model(y))
    assert set(kinds(graph)) == {Opaque}
    constants = [a for layer in graph.layers for a in layer.arguments if isinstance(a, np.ndarray)]
    np.testing.assert_array_equal(constants[0], np.arange(8, dtype=np.float32))


def test_the_integer_graph_stays_close_to_the_float_function_it_came_from():
    net = Net((1, 3, 8, 8))
    a = quantized_input(net, 0.03, 128)
    c = net.conv(a, 16, 3, "c1")
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    # A float reference of the same convolution, by hand.
    form_codes = net.params["c1.weight.codes"].view(np.int8).reshape(16, 3, 3, 3)
    weight = form_codes * net.params["c1.weight.scale"].astype(np.float64)[:, None, None, None]
    padded = np.pad(x.transpose(0, 2, 3, 1).astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    exact = np.einsum("nhwcij,oijc->nhwo", windows, weight) + net.params["c1.bias"]
    step = float(np.abs(exact).max() / 127)
    graph = lower(net.model(net.quantize(c, step, 128, "y")))
    (result,) = run(graph, {"x": x}).values()
    assert np.abs(result - exact).max() < 3 * step


@pytest.mark.parametrize("compressed", [True, False])
def test_a_parameter_as_an_output_is_stored_by_a_layer_of_its_own(compressed: bool):
    net = Net((1, 4, 4, 8))
    weight = net.weight((4, 8), 0, "w") if compressed else net.param("w", np.ones(3, np.float32))
    graph = lower(net.model(net.emit(op.nn.relu(net.x), "relu"), weight))
    stored = next(layer for layer in graph.layers if layer.output == graph.outputs[1])
    assert isinstance(stored, Opaque)
    assert stored.inputs == ()
    (array,) = stored.arguments
    assert isinstance(array, np.ndarray)
    assert array.shape == graph.tensors[stored.output].shape == ((4, 8) if compressed else (3,))
