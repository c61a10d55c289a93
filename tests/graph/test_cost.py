from __future__ import annotations

import numpy as np
from tvm import relax

from toys import Toy
from tvmcomp.graph.cost import LayerCost, layer_costs


def test_counts_layers_by_hand():
    toy = Toy()
    x = toy.input("x", 2, 6, 8, 4)
    y = toy.conv("conv", x, 10)
    y = toy.conv("depthwise", y, 10, groups=10, bias=False)
    pooled = toy.emit("pool", relax.op.mean(y, [1, 2]))
    z = toy.dense("fc", pooled, 5)
    assert layer_costs(toy.model(z)) == [
        LayerCost("conv", "nn.conv2d", 2 * 6 * 8 * 10 * 9 * 4, 10 * 9 * 4 * 4),
        LayerCost("conv.bias_add", "add", 0, 40),
        LayerCost("depthwise", "nn.conv2d", 2 * 6 * 8 * 10 * 9, 10 * 9 * 4),
        LayerCost("pool", "mean", 0, 0),
        LayerCost("fc", "matmul", 2 * 10 * 5, 10 * 5 * 4),
        LayerCost("fc.bias_add", "add", 0, 20),
    ]


def test_a_prepared_weight_belongs_to_its_reader():
    toy = Toy()
    x = toy.input("x", 3, 4)
    codes = toy.param("w", np.ones((4, 6), np.int8))
    scale = toy.param("w.scale", np.ones(6, np.float32))
    zero = toy.param("w.zero", np.zeros(6, np.int8))
    weight = toy.emit("w_real", relax.op.dequantize(codes, scale, zero, axis=1))
    y = toy.emit("fc", relax.op.matmul(x, weight))
    assert layer_costs(toy.model(y)) == [LayerCost("fc", "matmul", 3 * 4 * 6, 24 + 24 + 6)]


def test_transposed_convolution():
    toy = Toy()
    x = toy.input("x", 1, 4, 5, 5)
    weight = toy.param("up.weight", toy.normal(4, 6, 2, 2))
    y = toy.emit("up", relax.op.nn.conv2d_transpose(x, weight, (2, 2), kernel_layout="IOHW"))
    (cost,) = layer_costs(toy.model(y))
    assert cost.macs == 1 * 4 * 5 * 5 * 6 * 2 * 2
