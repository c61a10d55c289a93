"""Products of two activations as layers: scale, clip and permutations are part of them."""

from __future__ import annotations

import numpy as np
from tvm import relax

from build.graphs import Net
from tvmcomp.build.lower import lower
from tvmcomp.graph.layers import (
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
