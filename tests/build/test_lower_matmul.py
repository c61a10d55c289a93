"""Products of two activations as layers: scale, clip and permutations are part of them."""

from __future__ import annotations

import numpy as np
from tvm import relax

from build.graphs import Net
from tvmcomp.build.lower import lower
from tvmcomp.compress.reference import run
from tvmcomp.graph.layers import (
    Copy,
    Dequantize,
    FloatMatMul,
    IntMatMul,
    LayerGraph,
    Opaque,
    Quantize,
)

op = relax.op


def kinds(graph: LayerGraph) -> list[type]:
    return [type(layer) for layer in graph.layers]


def test_a_scaled_product_between_pairs_is_one_layer():
    net = Net((2, 5, 8))
    a, b = net.quantize(net.x, 0.05, 100, "a"), net.quantize(net.x, 0.03, 7, "b")
    turned = net.quantize(net.emit(op.permute_dims(b, [0, 2, 1]), "turn"), 0.03, 7, "turn")
    product = net.emit(op.matmul(a, turned), "product")
    scaled = net.emit(op.divide(product, relax.const(np.float32(4))), "scaled")
    clipped = net.emit(op.clip(scaled, -1, 1), "clipped")
    graph = lower(net.model(net.quantize(clipped, 0.02, 90, "y")))
    assert kinds(graph)[-2:] == [IntMatMul, Dequantize]
    layer = graph.layers[-2]
    scales = np.float32(0.05) * np.float64(np.float32(0.03)) / 4 / np.float64(np.float32(0.02))
    assert layer.multiplier == np.float32(scales)
    assert (layer.low, layer.high) == (40, 140)


def test_a_product_in_float_takes_its_factor_and_relu():
    net = Net((2, 5, 8))
    turned = net.emit(op.permute_dims(net.x, [0, 2, 1]), "turn")
    product = net.emit(op.matmul(net.x, turned), "product")
    scaled = net.emit(op.multiply(product, relax.const(np.float32(0.25))), "scaled")
    graph = lower(net.model(net.emit(op.nn.relu(scaled), "relu")))
    assert kinds(graph)[-1] is FloatMatMul
    assert (graph.layers[-1].scale, graph.layers[-1].low) == (0.25, 0.0)
    assert graph.layers[-1].output == "relu"


def test_a_factor_per_column_stays_outside():
    net = Net((2, 5, 8))
    turned = net.emit(op.permute_dims(net.x, [0, 2, 1]), "turn")
    product = net.emit(op.matmul(net.x, turned), "product")
    factor = net.param("f", np.arange(5, dtype=np.float32))
    graph = lower(net.model(net.emit(op.multiply(product, factor), "scaled")))
    assert kinds(graph)[-2:] == [FloatMatMul, Opaque]


def test_a_product_read_twice_ends_before_its_factor():
    net = Net((2, 5, 5))
    a = net.quantize(net.x, 0.05, 100, "a")
    product = net.emit(op.matmul(a, a), "product")
    scaled = net.emit(op.multiply(product, relax.const(np.float32(0.25))), "scaled")
    y = net.quantize(scaled, 0.02, 90, "y")
    graph = lower(net.model(net.emit(op.subtract(product, y), "rest")))
    assert kinds(graph)[:3] == [Quantize, Dequantize, FloatMatMul]
    assert graph.layers[2].scale == 1.0


def heads(net: Net, x: relax.Expr, name: str, axes: list[int]) -> relax.Var:
    return net.emit(op.permute_dims(x, axes), name)


def test_permutations_around_products_are_how_they_read_and_write():
    net = Net((1, 5, 2, 8))
    x = net.quantize(net.x, 0.05, 100, "x")
    q = net.quantize(heads(net, x, "q", [0, 2, 1, 3]), 0.05, 100, "q")
    k = net.quantize(heads(net, x, "k", [0, 2, 3, 1]), 0.05, 100, "k")
    v = net.quantize(heads(net, x, "v", [0, 2, 1, 3]), 0.05, 100, "v")
    p = net.quantize(net.emit(op.matmul(q, k), "scores"), 0.02, 90, "p")
    out = net.quantize(net.emit(op.matmul(p, v), "out"), 0.07, 90, "out")
    merged = net.quantize(heads(net, out, "merged", [0, 2, 1, 3]), 0.07, 90, "merged")
    graph = lower(net.model(merged))
    assert kinds(graph) == [Quantize, IntMatMul, IntMatMul, Dequantize]
    scores, values = graph.layers[1:3]
    assert scores.inputs == ("x.q", "x.q")
    assert (scores.perm_a, scores.perm_b, scores.perm_y) == ((0, 2, 1, 3), (0, 2, 3, 1), None)
    assert (values.perm_b, values.perm_y) == ((0, 2, 1, 3), (0, 2, 1, 3))
    assert graph.tensors.keys() == {"x", "x.q", "p.q", "merged.q", "merged.dq"}
    data = np.random.default_rng(0).standard_normal((1, 5, 2, 8)).astype(np.float32)
    codes = np.clip(np.rint(data / np.float32(0.05)) + 100, 0, 255) - 100
    real = codes.transpose(0, 2, 1, 3) * 0.05
    product = np.rint(real @ real.transpose(0, 1, 3, 2) / 0.02).clip(-90, 165) * 0.02
    expected = (product @ real).transpose(0, 2, 1, 3)
    (got,) = run(graph, {"x": data}).values()
    assert np.abs(got - expected.clip(-90 * 0.07, 165 * 0.07)).max() < 0.07


def test_a_permutation_that_leaves_no_contiguous_axis_stays_a_copy():
    net = Net((6, 5, 6))
    a = heads(net, net.x, "a", [0, 2, 1])
    b = heads(net, net.x, "b", [2, 0, 1])
    left = net.emit(op.matmul(a, net.x), "left")
    right = net.emit(op.matmul(net.emit(op.nn.relu(net.x), "relu"), b), "right")
    turned = heads(net, left, "turned", [0, 2, 1])
    graph = lower(net.model(turned, right))
    copies = {layer.name for layer in graph.layers if isinstance(layer, Copy)}
    assert {"a", "b", "turned"} <= copies
