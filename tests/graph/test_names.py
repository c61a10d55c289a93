from __future__ import annotations

import numpy as np
from tvm import relax

from toys import Toy
from tvmcomp.graph.names import NameBindings


def test_layers_are_named_after_their_weights_and_others_numbered():
    toy = Toy()
    x = toy.input("x", 1, 6, 6, 4)
    y = toy.emit("anything", relax.op.nn.relu(toy.conv("layer1.0.conv1", x, 8)))
    pooled = toy.emit("more", relax.op.mean(y, [1, 2]))
    z = toy.emit("result", relax.op.nn.relu(toy.dense("fc", pooled, 3)))
    after = NameBindings(toy.model(z)).run()
    names = [str(binding.var.name) for binding in after.module["main"].body.blocks[0].bindings]
    expected = ["layer1.0.conv1", "add_1", "relu_1", "mean_1", "fc", "add_2", "relu_2"]
    assert names == expected


def test_a_shared_layer_has_two_names():
    toy = Toy()
    x = toy.input("x", 2, 4)
    weight = toy.param("fc.weight", np.eye(4, dtype=np.float32))
    y = toy.emit("a", relax.op.matmul(toy.emit("b", relax.op.matmul(x, weight)), weight))
    after = NameBindings(toy.model(y)).run()
    names = [str(binding.var.name) for binding in after.module["main"].body.blocks[0].bindings]
    assert names == ["fc", "fc_1"]
