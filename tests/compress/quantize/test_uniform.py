"""QuantizeUniform on small networks: what it computes, stores, reports and refuses."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from tvm import relax

from toys import Toy, run
from tvmcomp.calibrate import (
    MSE,
    Calibration,
    Entropy,
    MinMax,
    MovingAverage,
    Observer,
    Percentile,
    collect,
)
from tvmcomp.compress.granularity import Granularity, PerAxis, PerGroup, PerTensor
from tvmcomp.compress.quantize import FloatActivations, QuantizeUniform, StaticActivations
from tvmcomp.compress.transform import PassResult
from tvmcomp.compress.weight_form import UniformWeight, expand_weights, match_weight
from tvmcomp.errors import CalibrationError, QuantizeError
from tvmcomp.graph.dataflow import Dataflow
from tvmcomp.model import Model
from tvmcomp.target import Target

TARGET = Target.load("x86-zen4")
DATA = np.random.default_rng(9).standard_normal((8, 3, 8, 8)).astype(np.float32)


def network() -> Model:
    """Stem, residual block, SiLU, depthwise, pool, classifier."""
    toy = Toy(2)
    x = toy.emit("nhwc", relax.op.permute_dims(toy.input("image", 1, 3, 8, 8), [0, 2, 3, 1]))
    x = toy.emit("relu1", relax.op.nn.relu(toy.conv("stem", x, 8)))
    y = toy.emit("sum", relax.op.add(toy.conv("block", x, 8), x))
    y = toy.emit("silu", relax.op.nn.silu(y))
    y = toy.emit("clip", relax.op.clip(toy.conv("dw", y, 8, groups=8), 0, 6))
    y = toy.emit("pool", relax.op.nn.max_pool2d(y, (2, 2), (2, 2), layout="NHWC"))
    y = toy.emit("mean", relax.op.mean(y, [1, 2], keepdims=True))
    return toy.model(toy.dense("fc", toy.emit("flat", relax.op.reshape(y, (1, 8))), 5))


MODEL = network()
WEIGHTS = [name for name in MODEL.params if name.endswith(".weight")]


@cache
def observed(observers: tuple[tuple[str, Observer], ...]) -> Calibration:
    return collect(MODEL, DATA, dict(observers), run)


def calibrate(step: QuantizeUniform, target: Target = TARGET) -> Calibration:
    return observed(tuple(step.observers(MODEL, target).items()))


def quantize(step: QuantizeUniform, target: Target = TARGET) -> PassResult:
    result = step(MODEL, calibrate(step, target).stats, target)
    relax.analysis.well_formed(result.model.module)
    return result


def outputs(model: Model) -> np.ndarray:
    """Over all of DATA, by TVM's own float32 operators."""
    call = run(expand_weights(model))
    return np.concatenate([call({"image": image[None]})["output0"] for image in DATA])


@cache
def exact_outputs() -> np.ndarray:
    return outputs(MODEL).astype(np.float64)


def sqnr(model: Model) -> float:
    exact, noisy = exact_outputs(), outputs(model)
    return float(10 * np.log10(np.square(exact).sum() / np.square(noisy - exact).sum()))


def forms(model: Model) -> dict[str, UniformWeight]:
    found = {}
    for var, value in Dataflow.of(model.module).bindings.items():
        form = match_weight(value, model.params)
        if isinstance(form, UniformWeight):
            found[str(var.name)] = form
    return found


def test_eight_bits_are_close_to_float() -> None:
    assert sqnr(quantize(QuantizeUniform()).model) > 30


@pytest.mark.parametrize(
    ("observer", "least"),
    [
        (MinMax(), 25),
        (Percentile(99.99), 25),
        (MSE(), 25),
        # Means of the batches' ranges, and what KL divergence clips, cost the rare large value.
        (MovingAverage(), 20),
        (Entropy(), 20),
    ],
)
def test_every_observer_is_usable(observer: Observer, least: float) -> None:
    assert sqnr(quantize(QuantizeUniform(activations=StaticActivations(observer))).model) > least


def test_fewer_bits_are_worse_and_smaller() -> None:
    results = [quantize(QuantizeUniform(bits=bits)) for bits in (8, 6, 4, 2)]
    ratios = [sqnr(result.model) for result in results]
    sizes = [sum(form.packed.nbytes for form in forms(result.model).values()) for result in results]
    assert ratios == sorted(ratios, reverse=True)
    count = sum(MODEL.params[name].size for name in WEIGHTS)
    assert sizes == [count, count * 6 // 8, count // 2, count // 4]


def test_weights_are_per_output_channel() -> None:
    got = forms(quantize(QuantizeUniform()).model)
    assert set(got) == set(WEIGHTS)
    for name, form in got.items():
        axis = 1 if name == "fc.weight" else 0
        assert form.granularity == PerAxis(axis), name
        weight = MODEL.params[name]
        others = tuple(i for i in range(weight.ndim) if i != axis)
        np.testing.assert_allclose(form.scale, np.abs(weight).max(axis=others) / 127, rtol=1e-6)


def test_the_model_is_not_touched_and_the_order_of_params_is_main_s() -> None:
    before = {name: array.copy() for name, array in MODEL.params.items()}
    result = quantize(QuantizeUniform()).model
    assert result is not MODEL
    for name, array in before.items():
        np.testing.assert_array_equal(MODEL.params[name], array)
    names = [str(var.name) for var in result.module["main"].params]
    assert names == ["image", *result.params]
    assert "stem.weight.codes" in names
    assert "stem.weight" not in names
    np.testing.assert_array_equal(result.params["stem.bias"], MODEL.params["stem.bias"])
    assert result.signature == MODEL.signature
    assert result.provenance.steps[-1].startswith("QuantizeUniform(bits=8")


def test_carried_tensors_share_scale_and_zero_point() -> None:
    bindings = Dataflow.of(quantize(QuantizeUniform()).model.module).bindings
    codes = {
        str(var.name): value for var, value in bindings.items() if str(var.name).endswith(".q")
    }

    def qparams(name: str) -> tuple[float, int]:
        _, scale, zero_point = codes[f"{name}.q"].args
        assert str(zero_point.ty.dtype) == "uint8"
        return float(scale.value.numpy()), int(zero_point.value.numpy())

    assert qparams("pool") == qparams("clip")
    assert qparams("flat") == qparams("mean")
    assert qparams("mean") != qparams("clip")
    assert qparams("clip")[1] == qparams("relu1")[1] == 0
    assert qparams("nhwc")[1] > 100


def test_a_fused_relu_is_measured_behind_it() -> None:
    """The range before the relu would waste half of the codes on negative values."""
    assert {"relu1", "clip", "sum"} <= set(QuantizeUniform().observers(MODEL, TARGET))
    assert not {"stem", "stem.bias_add", "block.bias_add"} & set(
        QuantizeUniform().observers(MODEL, TARGET)
    )


def test_the_report_counts_layers_bytes_and_macs() -> None:
    result = quantize(QuantizeUniform(exclude=("dw",)))
    assert [row.name for row in result.layers] == ["stem", "block", "fc"]
    rows = {row.name: row for row in result.layers}
    assert rows["stem"].op == "conv2d"
    assert (rows["stem"].before, rows["stem"].after) == (8 * 27 * 4, 8 * 27 + 8 * 4)
    assert rows["stem"].macs == 64 * 8 * 27
    assert rows["fc"].macs == 8 * 5
    assert 35 < rows["stem"].sqnr_db < 60
    (skipped,) = result.skipped
    assert (skipped.name, skipped.op, skipped.reason) == (
        "dw",
        "depthwise_conv2d",
        "excluded by 'dw'",
    )
    total = 64 * 8 * 27 + 64 * 8 * 72 + 64 * 8 * 9 + 40
    assert skipped.share == pytest.approx(64 * 8 * 9 / total)


def test_nothing_is_skipped_by_default() -> None:
    assert quantize(QuantizeUniform()).skipped == ()


def test_a_pattern_matches_the_name_the_user_knows() -> None:
    """The parameter's name without `.weight`, whatever the operator is called."""
    toy = Toy()
    x = toy.input("x", 1, 4)
    weight = toy.param("head.0.weight", toy.normal(4, 2))
    model = toy.model(toy.emit("matmul_17", relax.op.matmul(x, weight)))
    result = QuantizeUniform(exclude=("head.*",))(model, {}, TARGET)
    assert [skip.name for skip in result.skipped] == ["matmul_17"]
    assert result.model.params.keys() == model.params.keys()


@pytest.mark.parametrize("granularity", [None, PerTensor(), PerAxis(), PerGroup(2)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_alone(granularity: Granularity | None, symmetric: bool) -> None:
    """No pairs, no statistics, and any form of weight."""
    step = QuantizeUniform(
        bits=4,
        symmetric=symmetric,
        granularity=granularity,
        activations=FloatActivations(),
        exclude=("stem", "dw"),  # three input channels and one do not divide into twos
    )
    assert step.observers(MODEL, TARGET) == {}
    result = step(MODEL, {}, TARGET)
    relax.analysis.well_formed(result.model.module)
    assert all(
        not str(var.name).endswith(".q") for var in Dataflow.of(result.model.module).bindings
    )
    got = forms(result.model)
    assert set(got) == {"block.weight", "fc.weight"}
    assert (got["block.weight"].zero_point is None) == symmetric
    assert sqnr(result.model) > 10
    if granularity == PerGroup(2):
        assert got["block.weight"].scale.shape == (8, 3, 3, 4)
        assert got["fc.weight"].scale.shape == (4, 5)


def test_a_weight_that_a_float_layer_reads_too_stays() -> None:
    toy = Toy()
    x = toy.input("x", 1, 4, 4, 4)
    weight = toy.param("w.weight", toy.normal(4, 1, 1, 4))
    attrs = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
    a = toy.emit("a", relax.op.nn.conv2d(x, weight, **attrs))
    b = toy.emit("b", relax.op.nn.conv2d(a, weight, **attrs))
    model = toy.model(b)
    step = QuantizeUniform(exclude=("b",))
    data = np.random.default_rng(0).standard_normal((3, 4, 4, 4)).astype(np.float32)
    result = step(model, collect(model, data, step.observers(model, TARGET), run).stats, TARGET)
    assert list(result.model.params) == ["w.weight", "w.weight.codes", "w.weight.scale"]
    bindings = {str(v.name): e for v, e in Dataflow.of(result.model.module).bindings.items()}
    assert str(bindings["a"].args[1].name) == "w.weight.quantized"
    assert str(bindings["b"].args[1].name) == "w.weight"


class TestTargets:
    def test_avx2_weights_stay_in_seven_bits(self) -> None:
        for form in forms(quantize(QuantizeUniform(), Target.load("x86-avx2")).model).values():
            assert form.codes().min() >= -64
            assert form.codes().max() <= 63

    def test_arm_activations_are_signed(self) -> None:
        result = quantize(QuantizeUniform(), Target.load("arm-cortex-a76")).model
        kinds = {
            str(var.ty.dtype)
            for var in Dataflow.of(result.module).bindings
            if str(var.name).endswith(".q")
        }
        assert kinds == {"int8"}
        assert sqnr(result) > 25

    def test_vta_scales_are_powers_of_two_and_per_tensor(self) -> None:
        step = QuantizeUniform(ops=("conv2d", "dense"))
        result = quantize(step, Target.load("vta-default")).model
        for form in forms(result).values():
            assert form.granularity == PerTensor()
            assert np.log2(form.scale) % 1 == 0
        for var, value in Dataflow.of(result.module).bindings.items():
            if str(var.name).endswith(".q"):
                assert np.log2(value.args[1].value.numpy()) % 1 == 0
                assert int(value.args[2].value.numpy()) == 0


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            QuantizeUniform(symmetric=False),
            "no integer conv2d for weights with zero points; set symm",
        ),
        (
            QuantizeUniform(granularity=PerGroup(32)),
            "weight scales per group; use a scale per tensor or axis",
        ),
    ],
)
def test_a_scheme_the_target_lacks_is_refused(step: QuantizeUniform, message: str) -> None:
    with pytest.raises(QuantizeError, match=message):
        step.check(TARGET)
    with pytest.raises(QuantizeError, match=message):
        step(MODEL, {}, TARGET)


def test_scales_along_another_axis_are_refused() -> None:
    step = QuantizeUniform(granularity=PerAxis(3), ops=("conv2d",))
    with pytest.raises(QuantizeError, match=r"is not its output channel axis 0.*use PerAxis\(\)"):
        step(MODEL, calibrate(step).stats, TARGET)


def test_missing_statistics_are_named() -> None:
    with pytest.raises(CalibrationError, match="no statistics for tensor 'nhwc' and"):
        QuantizeUniform()(MODEL, {}, TARGET)


@pytest.mark.parametrize("bits", [0, 1, 9, 32])
def test_bits_out_of_range(bits: int) -> None:
    with pytest.raises(QuantizeError, match=f"bits is {bits}; weights take 2 to 8 bits"):
        QuantizeUniform(bits=bits)


def test_unknown_operators_are_refused() -> None:
    with pytest.raises(QuantizeError, match="ops lists 'convolution'; use some of conv2d"):
        QuantizeUniform(ops=("convolution",))
