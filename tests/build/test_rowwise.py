"""Row-wise and element-wise integer operators, lowered from QDQ: close to TVM's float run, equal to the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tvm import relax

from build.graphs import Net, run_opaque, simulate
from tvmcomp.build.lower import lower
from tvmcomp.compress.reference import run
from tvmcomp.flow import compile_model
from tvmcomp.graph.layers import (
    Concat,
    Dequantize,
    IntAdd,
    IntAffine,
    IntAvgPool,
    IntLayerNorm,
    IntMul,
    IntSoftmax,
    Layer,
    MaskSteps,
    MaxPool,
    Opaque,
    Pad,
    Quantize,
    Slice,
    Table,
    View,
)
from tvmcomp.model import Model

op = relax.op
SHAPE = (2, 3, 9, 20)


def kinds(model: Model) -> list[type[Layer]]:
    return [type(layer) for layer in lower(model).layers]


def check(
    model: Model, step: float, x: np.ndarray | None = None, skip: Sequence[int] = ()
) -> np.ndarray:
    """Codes equal the reference's, and lie within one step of the simulation but at flat index `skip`."""
    executable = compile_model(model)
    if x is None:
        shape = model.signature.inputs["x"].shape
        x = (np.random.default_rng(3).standard_normal(shape) * 2).astype(np.float32)
    (result,) = executable.run({"x": x}).values()
    (expected,) = run(executable.build.graph, {"x": x}, run_opaque).values()
    np.testing.assert_array_equal(result, expected)
    (simulated,) = simulate(model, x)
    assert len(np.unique(simulated)) > 3
    far = np.abs(result.astype(np.float64) - simulated) > step * 1.001
    assert not np.delete(far.reshape(-1), skip).any()
    return result


def scores(net: Net) -> relax.Var:
    return net.quantize(net.x, 0.05, 131, "in")


def test_softmax_with_a_factor():
    net = Net(SHAPE)
    scaled = net.emit(op.divide(scores(net), relax.const(np.float32(0.7))), "scaled")
    y = net.quantize(net.emit(op.nn.softmax(scaled), "soft"), 1 / 255, 0, "y")
    model = net.model(y)
    assert kinds(model) == [Quantize, IntSoftmax, Dequantize]
    check(model, 1 / 255)


@pytest.mark.parametrize("lowest", [-100.0, -1e4, float(np.finfo(np.float32).min)])
def test_a_constant_mask_takes_whole_steps(lowest: float):
    net = Net(SHAPE)
    causal = np.where(np.tri(9, 20, 5, dtype=bool), 0.0, lowest).astype(np.float32)
    masked = net.emit(op.add(scores(net), net.param("mask", causal)), "masked")
    y = net.quantize(net.emit(op.nn.softmax(masked), "soft"), 1 / 255, 0, "y")
    model = net.model(y)
    (softmax,) = (layer for layer in lower(model).layers if isinstance(layer, IntSoftmax))
    assert softmax.shift == 0
    result = check(model, 1 / 255)
    assert (result[..., causal < 0] == 0).all()


def test_a_relative_position_bias_keeps_fractions_of_a_step():
    net = Net(SHAPE)
    bias = net.rng.standard_normal((3, 9, 20)).astype(np.float32)
    window = np.where(net.rng.random((2, 1, 9, 20)) < 0.5, 0.0, -100.0).astype(np.float32)
    biased = net.emit(op.add(scores(net), net.param("bias", bias)), "biased")
    masked = net.emit(op.add(biased, net.param("window", window)), "masked")
    y = net.quantize(net.emit(op.nn.softmax(masked), "soft"), 1 / 255, 0, "y")
    model = net.model(y)
    assert kinds(model) == [Quantize, IntSoftmax, Dequantize]
    (softmax,) = (layer for layer in lower(model).layers if isinstance(layer, IntSoftmax))
    assert (softmax.shift, len(softmax.masks)) == (4, 2)
    check(model, 1 / 255)


@pytest.mark.parametrize("lowest", [-1e4, float(np.finfo(np.float32).min), -np.inf])
def test_a_mask_computed_from_an_input(lowest: float):
    """The last row of the input decides which columns may be seen: at least one may."""
    net = Net(SHAPE)
    last = net.emit(op.strided_slice(net.x, [1, 2], [0, 8], [1, 9]), "last")
    keep = net.emit(op.greater(last, relax.const(np.float32(0))), "keep")
    zero, low = (relax.const(np.float32(value)) for value in (0, lowest))
    mask = net.emit(op.where(keep, zero, low), "mask")
    masked = net.emit(op.add(scores(net), mask), "masked")
    y = net.quantize(net.emit(op.nn.softmax(masked), "soft"), 1 / 255, 0, "y")
    model = net.model(y)
    assert {IntSoftmax, MaskSteps} <= set(kinds(model))
    check(model, 1 / 255)


def test_a_row_that_is_masked_whole():
    """The lowest float32 gives a uniform row, as in float; -inf gives zeros where float gives NaN."""
    results = []
    for lowest in (float(np.finfo(np.float32).min), -np.inf):
        net = Net(SHAPE)
        mask = np.where(np.arange(9)[:, None] == 4, lowest, 0.0).astype(np.float32)
        masked = net.emit(op.add(scores(net), net.param("mask", mask)), "masked")
        y = net.quantize(net.emit(op.nn.softmax(masked), "soft"), 1 / 255, 0, "y")
        x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
        results.append(compile_model(net.model(y))(x)[:, :, 4])
    np.testing.assert_allclose(results[0], 1 / 20, atol=1 / 255)
    assert (results[1] == 0).all()


def test_what_is_no_mask_stays_outside():
    net = Net(SHAPE)
    a = scores(net)
    # Used twice, over another axis, and by a negative factor.
    twice = net.emit(op.add(a, relax.const(np.float32(1))), "twice")
    other = net.emit(op.nn.softmax(a, axis=1), "other")
    negative = net.emit(
        op.nn.softmax(net.emit(op.multiply(a, relax.const(np.float32(-1))), "n")), "s"
    )
    for value in (twice, other, negative):
        model = net.model(net.quantize(value, 0.05, 3, "y"))
        assert IntSoftmax not in kinds(model)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms(kind: str, dtype: str):
    net = Net((2, 9, 70))
    zero = 131 if dtype == "uint8" else 5
    a = net.quantize(net.x, 0.05, zero, "in", dtype)
    gamma = net.param("gamma", net.rng.standard_normal(70).astype(np.float32))
    beta = net.param("beta", net.rng.standard_normal(70).astype(np.float32))
    value = (
        op.nn.layer_norm(a, gamma, beta, axes=[-1], epsilon=1e-3)
        if kind == "layer"
        else op.nn.rms_norm(a, gamma, axes=[-1], epsilon=1e-3)
    )
    y = net.quantize(net.emit(op.nn.relu(net.emit(value, "norm")), "relu"), 0.02, zero, "y", dtype)
    model = net.model(y)
    assert kinds(model) == [Quantize, IntLayerNorm, Dequantize]
    result = check(model, 0.02)
    assert result.min() == 0


def test_a_constant_row_is_beta():
    net = Net((1, 3, 40))
    a = net.quantize(net.x, 0.05, 131, "in")
    beta = np.linspace(-1, 1, 40).astype(np.float32)
    gamma = net.param("gamma", np.ones(40, np.float32))
    norm = op.nn.layer_norm(a, gamma, net.param("beta", beta), axes=[-1], epsilon=0.0)
    model = net.model(net.quantize(net.emit(norm, "norm"), 0.02, 131, "y"))
    result = compile_model(model)(np.full((1, 3, 40), 0.7, np.float32))
    assert np.abs(result - beta).max() <= 0.0101


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
@pytest.mark.parametrize("shape", [(20,), (9, 20), (3, 1, 1)])
def test_arrays_beside_codes(name: str, shape: tuple[int, ...]):
    net = Net(SHAPE)
    array = net.param("c", net.rng.uniform(0.5, 2, shape).astype(np.float32))
    value = net.emit(getattr(op, name)(scores(net), array), "value")
    model = net.model(net.quantize(value, 0.06, 120, "y"))
    assert kinds(model) == [Quantize, IntAffine, Dequantize]
    check(model, 0.06)


def test_a_scale_and_a_shift_are_one_layer():
    net = Net(SHAPE)
    gamma = net.param("g", net.rng.uniform(-2, 2, 20).astype(np.float32))
    beta = net.param("b", net.rng.standard_normal((9, 1)).astype(np.float32))
    scaled = net.emit(op.add(net.emit(op.multiply(scores(net), gamma), "m"), beta), "a")
    model = net.model(net.quantize(net.emit(op.clip(scaled, -1, 2), "k"), 0.06, 120, "y"))
    assert kinds(model) == [Quantize, IntAffine, Dequantize]
    result = check(model, 0.06)
    assert (result.min(), result.max()) == pytest.approx((-1.02, 1.98))


@pytest.mark.parametrize("name", ["add", "multiply"])
def test_a_computed_operand_of_a_smaller_shape(name: str):
    net = Net(SHAPE)
    a = scores(net)
    row = net.quantize(net.emit(op.mean(a, [2], True), "row"), 0.03, 100, "row")
    value = net.emit(getattr(op, name)(row, a), "value")
    model = net.model(net.quantize(value, 0.09, 120, "y"))
    assert {IntAdd, IntMul} & set(kinds(model))
    assert Opaque not in kinds(model)
    check(model, 0.09)


def test_a_class_token_is_joined_as_codes():
    net = Net((2, 8, 24))
    a = net.quantize(net.x, 0.05, 131, "in")
    token = net.param("token", net.rng.standard_normal((2, 1, 24)).astype(np.float32))
    joined = net.quantize(net.emit(op.concat([token, a], 1), "cat"), 0.06, 120, "cat")
    first = net.emit(op.strided_slice(joined, [1], [0], [1]), "first")
    y = net.quantize(first, 0.06, 120, "y")
    model = net.model(net.quantize(net.emit(op.add(joined, y), "sum"), 0.11, 120, "z"))
    assert kinds(model) == [Quantize, Concat, Slice, IntAdd, Dequantize]
    check(model, 0.11)


def test_slices_backwards_and_with_gaps():
    net = Net(SHAPE)
    part = op.strided_slice(scores(net), [1, 2, -1], [-1, 8, 3], [-100, 0, 19], [-1, -3, 2])
    model = net.model(net.quantize(net.emit(part, "part"), 0.05, 131, "y"))
    assert kinds(model) == [Quantize, Slice, Dequantize]
    check(model, 0)


def test_padding_with_real_zero():
    net = Net(SHAPE)
    padded = net.emit(op.nn.pad(scores(net), [0, 0, 1, 0, 2, 1, 0, 3]), "padded")
    model = net.model(net.quantize(padded, 0.05, 131, "y"))
    assert kinds(model) == [Quantize, Pad, Dequantize]
    check(model, 0)


@pytest.mark.parametrize("axes", [[1], [2], [3], [1, 2], [0, 1], [2, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("keep", [True, False])
def test_means_and_maxima_over_neighbouring_axes(axes: list[int], keep: bool):
    net = Net(SHAPE)
    a = scores(net)
    mean = net.quantize(net.emit(op.mean(a, axes, keep), "mean"), 0.03, 120, "mean")
    most = net.quantize(net.emit(op.max(a, axes, keep), "max"), 0.05, 131, "max")
    model = net.model(net.quantize(net.emit(op.add(mean, most), "sum"), 0.05, 100, "y"))
    assert set(kinds(model)) <= {Quantize, View, IntAvgPool, MaxPool, IntAdd, Dequantize}
    x = (np.random.default_rng(3).standard_normal(SHAPE) * 2).astype(np.float32)
    executable = compile_model(model)
    (expected,) = run(executable.build.graph, {"x": x}, run_opaque).values()
    np.testing.assert_array_equal(executable(x), expected)
    assert np.abs(expected - simulate(model, x)[0]).max() <= 0.0501


@pytest.mark.parametrize("spelling", ["op", "divided", "multiplied", "tanh", "tanh op", "quick"])
def test_every_spelling_of_gelu_is_one_table(spelling: str):
    net = Net(SHAPE)
    a = scores(net)

    def number(value: float) -> relax.Expr:
        return relax.const(np.float32(value))

    if spelling == "op":
        value = op.nn.gelu(a)
    elif spelling == "tanh op":
        value = op.nn.gelu_tanh(a)
    elif spelling == "quick":
        gate = net.emit(op.sigmoid(net.emit(op.multiply(a, number(1.702)), "t")), "g")
        value = op.multiply(a, gate)
    elif spelling == "tanh":
        cube = net.emit(op.power(a, number(3)), "cube")
        inner = net.emit(op.add(a, net.emit(op.multiply(cube, number(0.044715)), "k")), "i")
        root = net.emit(op.multiply(inner, number(0.7978845608)), "r")
        one = net.emit(op.add(net.emit(op.tanh(root), "th"), number(1)), "one")
        value = op.multiply(net.emit(op.multiply(a, number(0.5)), "half"), one)
    else:
        scaled = (
            op.divide(a, number(2**0.5))
            if spelling == "divided"
            else op.multiply(a, number(0.5**0.5))
        )
        one = net.emit(op.add(net.emit(op.erf(net.emit(scaled, "s")), "erf"), number(1)), "one")
        value = op.multiply(net.emit(op.multiply(a, one), "product"), number(0.5))
    model = net.model(net.quantize(net.emit(value, "gelu"), 0.02, 9, "y"))
    assert kinds(model) == [Quantize, Table, Dequantize]
    check(model, 0.02)
