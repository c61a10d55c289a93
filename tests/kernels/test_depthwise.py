"""Depthwise kernels against their definition, in every layout and on every ISA row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kernel_harness import check, every_isa, layout, random_values, spec
from tvmcomp.graph.layers import FloatConv, IntConv
from tvmcomp.kernels.depthwise import build_depthwise
from tvmcomp.kernels.depthwise_vnni import VnniPlan
from tvmcomp.kernels.vector import GENERIC, Isa

VNNI = Isa("avx512-vnni", 16, vnni=True, vbmi=True, fma=True)
# batch, height, width, channels, kernel, strides, pads, dilation, y halo, extra pitch of x and y
CASES = [
    (1, 1, 1, 1, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 0, 0, 0),
    (2, 5, 7, 32, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, 0, 0),
    (1, 8, 9, 96, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 2, 0, 0),
    (1, 7, 6, 67, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 0, 5, 0),
    (1, 9, 8, 150, (3, 2), (1, 2), (1, 0, 0, 1), (1, 1), 0, 0, 3),
    (2, 6, 9, 24, (5, 5), (2, 2), (2, 2, 1, 2), (1, 1), 1, 8, 40),
    (1, 9, 9, 16, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 0, 0, 0),
    (1, 3, 9, 40, (1, 7), (1, 1), (0, 3, 0, 3), (1, 1), 0, 0, 9),
    (1, 9, 2, 64, (7, 1), (1, 1), (3, 0, 3, 0), (1, 1), 0, 64, 64),
]


def case(
    index, x_dtype="uint8", y_dtype="uint8", residual=None, multiply=1, seed=0, wide=False, **fields
):
    batch, height, width, channels, kernel, strides, pads, dilation, halo, *pad = CASES[index]
    rng = np.random.default_rng(seed)
    out = [
        (size + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilation[i] - 1) // strides[i] + 1
        for i, size in enumerate((height, width))
    ]
    shape = (batch, *out, channels * multiply)
    x = spec("x", (batch, height, width, channels), x_dtype, zero=37)
    y = spec("y", shape, y_dtype, zero=-11 if y_dtype == "int8" else 200)
    tensors, inputs = {"x": x, "y": y}, ("x",)
    layouts = {"x": layout(x, max(pads), pad[0]), "y": layout(y, halo, pad[1])}
    if residual:
        tensors["r"] = spec("r", shape, residual)
        layouts["r"] = layout(tensors["r"], 1, pad[0])
        inputs = ("x", "r")
    outputs = channels * multiply
    geometry = {"name": "d", "inputs": inputs, "output": "y", "strides": strides, "pads": pads}
    geometry |= {"dilation": dilation, "groups": channels}
    if x_dtype == "float32":
        fields = {"low": -0.5, "high": 2.0} | fields
        layer = FloatConv(
            weight=rng.standard_normal((outputs, *kernel, 1)).astype(np.float32),
            bias=rng.standard_normal(outputs).astype(np.float32), **geometry, **fields,
        )  # fmt: skip
        return layer, tensors, layouts
    weight = random_values(rng, spec("w", (outputs, *kernel, 1), "int8"))
    if wide:
        weight = 2 * weight.astype(np.int16) + 1
    spread = 40.0 * np.sqrt(np.prod(kernel)) * 128
    low, high = (
        (-100.5, 90.25) if y_dtype == "float32" else (-100, 111) if y_dtype == "int8" else (5, 249)
    )
    fields = {"low": low, "high": high, "residual_scale": 0.43 if residual else 0.0} | fields
    fields.setdefault("multiplier", (rng.uniform(0.5, 1.5, outputs) * 100 / spread).astype("f4"))
    center = 0 if y.qparams is None else y.qparams.zero_point
    fields.setdefault("bias", (rng.uniform(-60, 160, outputs) - center).astype(np.float32))
    return IntConv(weight=weight, **geometry, **fields), tensors, layouts


@every_isa
@pytest.mark.parametrize("index", range(len(CASES)))
def test_u8(row, index):
    check(build_depthwise, row, *case(index))


@every_isa
@pytest.mark.parametrize("y_dtype", ["uint8", "float32"])
def test_weights_of_9_bits_and_float_results(row, y_dtype):
    check(build_depthwise, row, *case(3, "uint8", y_dtype, wide=y_dtype == "uint8"))
    check(build_depthwise, row, *case(1, "int8", y_dtype, wide=True))
    check(build_depthwise, row, *case(2, "uint8", y_dtype, y_dtype, wide=True))


@every_isa
@pytest.mark.parametrize("dtypes", [("int8", "int8"), ("uint8", "int8"), ("int8", "uint8")])
def test_signed_codes(row, dtypes):
    for index in (2, 3, 5):
        got = check(build_depthwise, row, *case(index, *dtypes))
        assert (got.min(), got.max()) == ((-100, 111) if dtypes[1] == "int8" else (5, 249))


@every_isa
@pytest.mark.parametrize("residual", ["uint8", "int8"])
def test_residual(row, residual):
    for index in (1, 3, 5):
        check(build_depthwise, row, *case(index, residual=residual))


@every_isa
def test_full_range_without_clip(row):
    check(build_depthwise, row, *case(1, low=0, high=255))
    check(build_depthwise, row, *case(4, y_dtype="int8", low=-128, high=127))


@every_isa
def test_values_beyond_int32_saturate(row):
    """A value of 2**31 or more converts to the lowest integer if it is not clipped first."""
    huge = np.full(96, 1e9, np.float32)
    got = check(build_depthwise, row, *case(2, multiplier=huge, low=0, high=255))
    assert set(np.unique(got)) >= {0, 255}


@every_isa
def test_ties_go_to_even(row):
    halves = np.full(32, 0.5, np.float32)
    args = case(1, multiplier=halves, bias=np.full(32, -100.0, np.float32), low=0, high=255)
    x = np.random.default_rng(0).integers(0, 3, (2, 5, 7, 32)).astype(np.uint8)
    args[1]["x"] = spec("x", (2, 5, 7, 32), zero=1)
    args[0].weight[...] = np.clip(args[0].weight, -2, 2)
    check(build_depthwise, row, *args, arrays=[x])


@every_isa
def test_rounding_does_not_see_the_zero_point(row):
    """Just above a half: a float32 sum with the zero point would lie on it."""
    above = np.full(32, np.nextafter(np.float32(0.5), np.float32(1)))
    args = case(1, low=0, high=255, multiplier=above, bias=0 * above)
    args[0].weight[...] = 0
    args[0].weight[:, 1, 1] = 1
    x = np.random.default_rng(0).integers(37, 39, (2, 5, 7, 32)).astype(np.uint8)
    got = check(build_depthwise, row, *args, arrays=[x])
    assert set(np.unique(got)) == {200, 201}


@every_isa
def test_the_multiply_is_fused(row):
    """Biases beside a tie of the product: separate rounding of the product changes codes."""
    rng = np.random.default_rng(1)
    args = case(1, low=0, high=255)
    layer = args[0]
    layer.weight[...] = 0
    layer.weight[:, 1, 1] = 1
    x = np.broadcast_to(rng.integers(0, 256, (2, 5, 7, 1)), (2, 5, 7, 32)).astype(np.uint8)
    layer.multiplier[...] = rng.uniform(0.2, 0.9, 32).astype(np.float32)
    target = (x[0, 2, 3, 0] - 37.0) * layer.multiplier.astype(np.float64)
    layer.bias[...] = rng.integers(-190, 40, 32) + 0.5 - target
    apart = np.rint((x - np.float32(37)) * layer.multiplier + layer.bias)
    apart = (apart + args[1]["y"].qparams.zero_point).clip(0, 255)
    got = check(build_depthwise, row, *args, arrays=[x])
    assert not np.array_equal(got, apart), "the data must tell the two apart"


@every_isa
@pytest.mark.parametrize("index", [1, 2, 3, 6, 8])
def test_float(row, index):
    check(build_depthwise, row, *case(index, "float32", "float32"), rtol=1e-6)


@every_isa
def test_float_residual_without_clip(row):
    args = case(3, "float32", "float32", residual="float32", low=-np.inf, high=np.inf)
    check(build_depthwise, row, *args, rtol=1e-6)


@every_isa
def test_channel_multiplier(row):
    check(build_depthwise, row, *case(5, multiply=3))
    check(build_depthwise, row, *case(1, "float32", "float32", multiply=2), rtol=1e-6)


@pytest.mark.parametrize(
    "plan", [VnniPlan(1, 1, 3, 1, True), VnniPlan(2, 2, 5, 1, False), VnniPlan(4, 1, 4, 1, True)]
)
def test_every_plan_gives_the_same(plan):
    def build(layer, tensors, layouts, isa):
        return build_depthwise(layer, tensors, layouts, isa, plan)

    check(build, (VNNI, "icelake-server"), *case(5 if plan.rows < 4 else 6))
    too_high = replace(plan, rows=64)
    assert build_depthwise(*case(5), VNNI, too_high) is None


def test_what_is_not_depthwise_is_refused():
    layer, tensors, layouts = case(1)
    tabled = IntConv(**{**vars(layer), "table": np.zeros(256, np.uint8)})
    assert build_depthwise(tabled, tensors, layouts, GENERIC) is None
    grouped = IntConv(**{**vars(layer), "groups": 1})
    assert build_depthwise(grouped, tensors, layouts, GENERIC) is None
    thin = layouts | {"x": layout(tensors["x"], 0)}
    assert build_depthwise(layer, tensors, thin, VNNI) is None
    assert build_depthwise(layer, tensors, layouts, VNNI).plan is not None
