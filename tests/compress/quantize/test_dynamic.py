"""Activations quantized at run time: which layers get them, what they cost in accuracy, and who refuses them."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

import tvmcomp as tc
from build.graphs import Net
from toys import Toy
from tvmcomp.compress import DynamicActivations, PerTensor, PerToken, QuantizeUniform, Recipe
from tvmcomp.compress.reference import run
from tvmcomp.compress.transform import PassResult
from tvmcomp.compress.weight_form import UniformWeight, match_weight
from tvmcomp.errors import CalibrationError, QuantizeError
from tvmcomp.frontend.dynamic_form import DynamicForm, match_dynamic
from tvmcomp.graph.dataflow import Dataflow
from tvmcomp.graph.layers import DynamicConv
from tvmcomp.model import Model
from tvmcomp.target import Target

op = relax.op
TARGET = Target.load("x86-zen4")
PER_TOKEN = QuantizeUniform(activations=DynamicActivations(PerToken()))
PER_TENSOR = QuantizeUniform(activations=DynamicActivations(PerTensor()))


def network() -> Model:
    """Two convolutions that read one tensor, a depthwise one, a classifier."""
    toy = Toy(2)
    x = toy.emit("nhwc", op.permute_dims(toy.input("image", 1, 3, 8, 8), [0, 2, 3, 1]))
    x = toy.emit("relu1", op.nn.relu(toy.conv("stem", x, 8)))
    y = toy.emit("sum", op.add(toy.conv("left", x, 8), toy.conv("right", x, 8)))
    y = toy.emit("clip", op.clip(toy.conv("dw", y, 8, groups=8), 0, 6))
    y = toy.emit("mean", op.mean(y, [1, 2], keepdims=True))
    return toy.model(toy.dense("fc", toy.emit("flat", op.reshape(y, (1, 8))), 40))


def quantize(step: QuantizeUniform, model: Model, target: Target = TARGET) -> PassResult:
    assert not step.calibrated
    assert step.observers(model, target) == {}
    result = step(model, {}, target)
    relax.analysis.well_formed(result.model.module)
    return result


def dynamic_inputs(model: Model) -> dict[str, tuple[str, DynamicForm]]:
    """What is quantized at run time: name -> (the tensor, the form)."""
    found = {}
    for var, value in Dataflow.of(model.module).bindings.items():
        if (match := match_dynamic(value)) is not None:
            found[str(var.name)] = (str(match[0].name), match[1])
    return found


def test_layers_with_a_weight_read_codes_and_nothing_else_does() -> None:
    result = quantize(PER_TOKEN, network())
    tensor, token = DynamicForm("uint8", False), DynamicForm("uint8", True)
    assert dynamic_inputs(result.model) == {
        "nhwc.per_tensor": ("nhwc", tensor),
        "relu1.per_tensor": ("relu1", tensor),
        "flat.per_token": ("flat", token),
    }
    assert [layer.name for layer in result.layers] == ["stem", "left", "right", "fc"]
    (skip,) = result.skipped
    assert (skip.name, skip.op) == ("dw", "depthwise_conv2d")
    assert "no depthwise_conv2d with ranges taken at run time" in skip.reason


def test_one_range_for_the_whole_tensor() -> None:
    inputs = dynamic_inputs(quantize(PER_TENSOR, network()).model)
    assert "flat.per_tensor" in inputs
    assert not any(form.per_token for _, form in inputs.values())


def test_codes_are_the_targets() -> None:
    inputs = dynamic_inputs(quantize(PER_TOKEN, network(), Target.load("arm-cortex-a76")).model)
    assert {form.dtype for _, form in inputs.values()} == {"int8"}
    model = quantize(PER_TOKEN, network(), Target.load("x86-avx2")).model
    for value in Dataflow.of(model.module).bindings.values():
        form = match_weight(value, model.params)
        if isinstance(form, UniformWeight):
            assert np.abs(form.codes()).max() <= 64


def test_a_layer_of_few_products_stays_in_float_unless_others_share_its_input() -> None:
    toy = Toy(4)
    x = toy.input("x", 3, 16)
    both = toy.model(toy.dense("a", x, 20), toy.dense("b", x, 20))
    assert [layer.name for layer in quantize(PER_TOKEN, both).layers] == ["a", "b"]
    toy = Toy(4)
    result = quantize(PER_TOKEN, toy.model(toy.dense("a", toy.input("x", 3, 16), 20)))
    assert result.layers == ()
    assert (
        result.skipped[0].reason == "20 products per value of its input do not pay for codes of it"
    )


def test_selection() -> None:
    step = QuantizeUniform(activations=DynamicActivations(), ops=("dense",))
    result = quantize(step, network())
    assert [layer.name for layer in result.layers] == ["fc"]
    assert {skip.reason for skip in result.skipped} >= {"ops does not list conv2d"}


@pytest.mark.parametrize("target", ["vta-default", "cuda-sm90"])
def test_targets_without_it_refuse(target: str) -> None:
    with pytest.raises(QuantizeError, match=r"no range of a .* at run time per tensor; use Static"):
        PER_TENSOR.check(Target.load(target))


def test_the_host_takes_the_shipped_recipe() -> None:
    recipe = Recipe.load("int8-dynamic")
    assert not recipe.calibrated
    assert Recipe.load("int8").calibrated
    for name in ("host", "arm-cortex-a72", "x86-avx2", "x86-avx512-vnni"):
        recipe.validate(Target.load(name))


def test_a_recipe_that_needs_data_says_so() -> None:
    with pytest.raises(CalibrationError, match="recipe int8 needs samples"):
        tc.compress(network(), "int8", target=TARGET)


def encoder(tokens: int = 24, width: int = 32) -> Model:
    """Two blocks of single-head attention and a GELU MLP, each behind a layer norm."""
    net = Net((tokens, width), seed=7)

    def dense(x: relax.Expr, name: str, outputs: int) -> relax.Var:
        depth = int(x.ty.shape[1])
        weight = (net.rng.standard_normal((depth, outputs)) / depth**0.5).astype(np.float32)
        product = net.emit(op.matmul(x, net.param(f"{name}.weight", weight)), name)
        bias = net.param(f"{name}.bias", net.rng.standard_normal(outputs).astype(np.float32) * 0.1)
        return net.emit(op.add(product, bias), f"{name}.add")

    def norm(x: relax.Expr, name: str) -> relax.Var:
        one, zero = np.ones(width, np.float32), np.zeros(width, np.float32)
        scale, shift = net.param(f"{name}.weight", one), net.param(f"{name}.bias", zero)
        return net.emit(op.nn.layer_norm(x, scale, shift, [-1]), name)

    x = net.x
    for i in range(2):
        h = norm(x, f"{i}.n1")
        q, k, v = (dense(h, f"{i}.{part}", width) for part in "qkv")
        scores = net.emit(op.matmul(q, net.emit(op.permute_dims(k), f"{i}.kt")), f"{i}.scores")
        scaled = net.emit(op.multiply(scores, relax.const(np.float32(width**-0.5))), f"{i}.scaled")
        mixed = net.emit(op.matmul(net.emit(op.nn.softmax(scaled), f"{i}.p"), v), f"{i}.mixed")
        x = net.emit(op.add(dense(mixed, f"{i}.o", width), x), f"{i}.x1")
        hidden = net.emit(op.nn.gelu(dense(x, f"{i}.up", 4 * width)), f"{i}.gelu")
        x = net.emit(op.add(dense(hidden, f"{i}.down", width), x), f"{i}.x2")
    return net.model(x)


def test_a_range_per_token_survives_outlier_tokens() -> None:
    """A few tokens a hundred times larger than the rest take the range of a tensor; not that of other tokens."""
    model = encoder()
    rng = np.random.default_rng(1)
    x = rng.standard_normal((24, 32)).astype(np.float32)
    x[[3, 11]] *= 100
    ordinary = np.delete(np.arange(24), [3, 11])
    exact = tc.compile(model)(x)[ordinary].astype(np.float64)

    def sqnr(step: QuantizeUniform) -> float:
        executable = tc.compile(tc.compress(model, Recipe((step,))))
        graph = executable.build.graph
        assert sum(isinstance(layer, DynamicConv) for layer in graph.layers) == 12
        error = executable(x)[ordinary] - exact
        return float(10 * np.log10(np.square(exact).sum() / np.square(error).sum()))

    per_token, per_tensor = sqnr(PER_TOKEN), sqnr(PER_TENSOR)
    assert per_token > 30
    assert per_token > per_tensor + 10


def test_a_network_without_float_sums_equals_the_reference_bit_for_bit() -> None:
    toy = Toy(3)
    x = toy.emit("nhwc", op.permute_dims(toy.input("image", 1, 3, 8, 8), [0, 2, 3, 1]))
    x = toy.emit("relu1", op.nn.relu(toy.conv("stem", x, 8)))
    x = toy.emit("flat", op.reshape(x, (1, 512)))
    executable = tc.compile(tc.compress(toy.model(toy.dense("fc", x, 40)), "int8-dynamic"))
    for seed in range(3):
        image = np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype(np.float32)
        (expected,) = run(executable.build.graph, {"image": image}).values()
        np.testing.assert_array_equal(executable(image), expected)
    assert executable.payload.manifest.calibration_digest is None
