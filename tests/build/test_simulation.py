"""Each integer operator within one step of TVM's own float run of the quantize/dequantize graph it came from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import relax

from build.graphs import Net
from tvmcomp.compress.weight_form import expand_weights
from tvmcomp.flow import compile_model
from tvmcomp.graph.layers import Opaque
from tvmcomp.model import Model

op = relax.op
SHAPE = (1, 7, 6, 16)
STEP = 0.07


def simulate(model: Model, x: np.ndarray) -> np.ndarray:
    """The QDQ function in float32, by TVM alone: weights expanded, quantize and dequantize as written."""
    plain = expand_weights(model)
    executable = tvm.compile(plain.module, tvm.target.Target({"kind": "llvm", "num-cores": 1}))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    weights = [tvm.runtime.tensor(array) for array in plain.params.values()]
    return machine["main"](tvm.runtime.tensor(x), *weights).numpy()


def conv(net: Net, x: relax.Var) -> relax.Var:
    return net.emit(op.nn.relu(net.conv(x, 24, 3, "c", strides=2)), "relu")


def residual(net: Net, x: relax.Var) -> relax.Var:
    return net.emit(op.clip(net.emit(op.add(net.conv(x, 16, 3, "c"), x), "sum"), 0, 6), "relu6")


def dense(net: Net, x: relax.Var) -> relax.Var:
    pooled = net.quantize(net.emit(op.mean(x, [1, 2], True), "gap"), 0.02, 128, "gap")
    flat = net.quantize(net.emit(op.reshape(pooled, (1, 16)), "flat"), 0.02, 128, "flat")
    return net.emit(op.matmul(flat, net.weight((16, 10), 1, "w")), "fc")


OPERATORS: dict[str, Callable[[Net, relax.Var], relax.Var]] = {
    "conv relu": conv,
    "conv residual relu6": residual,
    "depthwise": lambda net, x: net.conv(x, 16, 5, "c", groups=16),
    "grouped": lambda net, x: net.conv(x, 32, 3, "c", groups=4),
    "dilated": lambda net, x: net.conv(x, 16, 3, "c", dilation=2, padding=2),
    "dense": dense,
    "add": lambda net, x: net.emit(op.add(x, net.quantize(x, 0.03, 77, "other")), "add"),
    "multiply": lambda net, x: net.emit(op.multiply(x, net.quantize(x, 0.03, 77, "g")), "mul"),
    "concat": lambda net, x: net.emit(op.concat([x, net.quantize(x, 0.03, 77, "o")], 3), "cat"),
    "average pool": lambda net, x: net.emit(
        op.nn.avg_pool2d(x, (3, 3), (2, 2), (1, 1), layout="NHWC"), "pool"
    ),
    "max pool": lambda net, x: net.emit(
        op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1), layout="NHWC"), "pool"
    ),
    "silu": lambda net, x: net.emit(op.nn.silu(x), "silu"),
    "resize": lambda net, x: net.emit(
        op.image.resize2d(x, (14, 12), layout="NHWC", method="linear"), "resize"
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_within_one_step_of_the_float_simulation(name: str):
    net = Net(SHAPE, seed=11)
    x = net.quantize(net.x, 0.05, 120, "in")
    model = net.model(net.quantize(OPERATORS[name](net, x), STEP, 101, "y"))
    executable = compile_model(model)
    assert not any(isinstance(layer, Opaque) for layer in executable.build.graph.layers)
    data = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32) * 2
    got, expected = executable(data), simulate(model, data)
    assert len(np.unique(expected)) > 5
    assert np.abs(got - expected).max() <= STEP * 1.001
    # A resize to another scale rounds twice: to its own codes, then by the table.
    assert np.mean(got == expected) > 0.75
