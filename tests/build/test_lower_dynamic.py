"""Activations quantized at run time: which layers they become, and that compiled they equal the reference."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from build.graphs import Net
from tvmcomp.build.lower import lower
from tvmcomp.compress.reference import fake_quantize, run
from tvmcomp.compress.weight_form import expand_weights
from tvmcomp.flow import compile_model
from tvmcomp.frontend.dynamic_form import DynamicForm, dynamic_quantize, match_dynamic
from tvmcomp.graph.layers import (
    DynamicConv,
    DynamicDequantize,
    DynamicQuantize,
    FloatConv,
    LayerGraph,
)

op = relax.op


def kinds(graph: LayerGraph) -> list[type]:
    return [type(layer) for layer in graph.layers]


def dynamic(net: Net, x: relax.Expr, name: str, form: DynamicForm) -> relax.Var:
    return net.emit(dynamic_quantize(x, form), name)


def dense(net: Net, x: relax.Expr, width: int, name: str) -> relax.Var:
    depth = int(x.ty.shape[-1])
    product = net.emit(op.matmul(x, net.weight((depth, width), 1, f"{name}.weight")), name)
    bias = net.param(f"{name}.bias", net.rng.standard_normal(width).astype(np.float32))
    return net.emit(op.add(product, bias), f"{name}.add")


def block(form: DynamicForm) -> Net:
    """Two layers that share one quantized input, a third with a residual; GELU stays in float."""
    net = Net((2, 5, 24), seed=2)
    x = dynamic(net, net.x, "x.dynamic", form)
    a, b = dense(net, x, 24, "a"), dense(net, x, 24, "b")
    gated = net.emit(op.nn.gelu(a), "gelu")
    c = dense(net, dynamic(net, gated, "gelu.dynamic", form), 24, "c")
    total = net.emit(op.nn.relu(net.emit(op.add(c, b), "sum")), "relu")
    net.result = net.model(total)
    return net


@pytest.mark.parametrize("form", [DynamicForm("uint8", True), DynamicForm("int8", False)])
def test_the_form_reads_back(form):
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    call = dynamic_quantize(x, form)
    found = match_dynamic(call)
    assert found is not None
    assert found[0].same_as(x)
    assert found[1] == form
    assert match_dynamic(op.nn.relu(x)) is None


def test_readers_share_the_codes_and_take_the_residual():
    graph = lower(block(DynamicForm("uint8", True)).result)
    assert [kind for kind in kinds(graph) if kind is DynamicQuantize] == [DynamicQuantize] * 2
    a, b, c = (layer for layer in graph.layers if isinstance(layer, DynamicConv))
    assert a.inputs == b.inputs == ("x.dynamic.codes", "x.dynamic.scale", "x.dynamic.zero_point")
    assert c.inputs == (*(f"gelu.dynamic.{n}" for n in ("codes", "scale", "zero_point")), "b.add")
    assert (c.low, c.high, a.low) == (0.0, np.inf, -np.inf)
    assert graph.tensors["x.dynamic.scale"].shape == (2, 5, 1)
    assert graph.tensors["x.dynamic.codes"].dtype == "uint8"


@pytest.mark.parametrize("form", [DynamicForm("uint8", True), DynamicForm("int8", False)])
def test_dense_layers_equal_the_reference(form):
    net = block(form)
    executable = compile_model(net.result)
    graph = executable.build.graph
    x = np.random.default_rng(0).standard_normal((2, 5, 24)).astype(np.float32)
    x[1, 3] = 0
    # GELU is TVM's: what it has computed is taken over.
    a = graph_values(graph, x)
    plain = expand_weights(net.result).params
    real = fake_quantize(x, per_row=form.per_token, dtype=form.dtype)
    expected = real @ plain["a.weight"] + plain["a.bias"]
    np.testing.assert_allclose(a["a.add"], expected, rtol=2e-5, atol=1e-5)
    second = fake_quantize(a["gelu"], per_row=form.per_token, dtype=form.dtype)
    expected = second @ plain["c.weight"] + plain["c.bias"] + a["b.add"]
    np.testing.assert_allclose(executable(x), np.maximum(expected, 0), rtol=1e-4, atol=1e-2)


def graph_values(graph: LayerGraph, x: np.ndarray) -> dict[str, np.ndarray]:
    from scipy.special import erf

    def gelu(layer, arrays):
        (value,) = arrays
        return [(0.5 * value * (1 + erf(value / np.sqrt(2)))).astype(np.float32)]

    return run(graph, {"x": x}, gelu, keep=True)


def image(net: Net) -> relax.Var:
    return net.emit(op.permute_dims(net.x, [0, 2, 3, 1]), "nhwc")


@pytest.mark.parametrize("target", ["host", "x86-avx2"])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_convolutions_equal_the_reference_bit_for_bit(target, dtype):
    form = DynamicForm(dtype)
    net = Net((2, 3, 9, 11), seed=3)
    x = image(net)
    a = net.emit(op.nn.relu(net.conv(dynamic(net, x, "x.d", form), 20, 3, "c1")), "r1")
    b = dynamic(net, a, "a.d", form)
    total = net.emit(op.add(net.conv(b, 20, 3, "c2"), a), "sum")
    c = net.conv(dynamic(net, total, "sum.d", form), 8, 5, "c3", strides=2)
    executable = compile_model(net.model(c), target=target)
    graph = executable.build.graph
    assert kinds(graph).count(DynamicConv) == 3
    for seed in range(2):
        x = np.random.default_rng(seed).standard_normal((2, 3, 9, 11)).astype(np.float32)
        (expected,) = run(graph, {"x": x}).values()
        np.testing.assert_array_equal(executable(x), expected)
    x[0, 1, 2, 3] = np.inf
    assert np.isnan(executable(x)).all()


def test_a_reader_in_float_gets_what_the_codes_stand_for():
    form = DynamicForm("uint8", False)
    net = Net((1, 4, 6, 8), seed=4)
    x = dynamic(net, net.x, "x.d", form)
    y = net.conv(x, 8, 3, "c")
    z = net.conv(x, 8, 1, "f", quantized=False)
    executable = compile_model(net.model(y, z, x))
    graph = executable.build.graph
    assert kinds(graph).count(DynamicQuantize) == 1
    assert {DynamicDequantize, DynamicConv, FloatConv} <= set(kinds(graph))
    array = np.random.default_rng(1).standard_normal((1, 4, 6, 8)).astype(np.float32)
    expected = list(run(graph, {"x": array}).values())
    got = executable(array)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[2], fake_quantize(array, per_row=False, dtype="uint8"))


def test_a_convolution_of_rows_with_scales_of_their_own_stays_in_float():
    net = Net((1, 4, 6, 8), seed=4)
    graph = lower(
        net.model(net.conv(dynamic(net, net.x, "x.d", DynamicForm("uint8", True)), 8, 3, "c"))
    )
    assert kinds(graph) == [DynamicQuantize, DynamicDequantize, FloatConv]
