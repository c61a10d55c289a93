"""The numpy definition against exact fractions, torch, and hand-made cases."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tvmcomp.compress.reference import (
    compute,
    fma_f32,
    make_table,
    quantize,
    round_clip,
    run,
    simulate_layer,
)
from tvmcomp.errors import DataError, ModelError
from tvmcomp.graph.layers import (
    Concat,
    Copy,
    Dequantize,
    FloatConv,
    IntAdd,
    IntAvgPool,
    IntConv,
    IntMul,
    LayerGraph,
    MaxPool,
    Opaque,
    QParams,
    Quantize,
    Resize,
    Table,
    TensorSpec,
    View,
)


def spec(name, shape, dtype="uint8", scale=0.05, zero=3):
    qparams = None if dtype == "float32" else QParams(float(np.float32(scale)), zero)
    return TensorSpec(name, tuple(shape), dtype, qparams)


def codes(rng, shape, dtype="uint8"):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape, endpoint=False).astype(dtype)


def nearest_f32(exact: Fraction) -> np.float32:
    """Correct rounding of a fraction to float32, by comparing neighbours exactly."""
    guess = np.float32(float(exact))
    near = [
        np.nextafter(guess, np.float32(-np.inf)),
        guess,
        np.nextafter(guess, np.float32(np.inf)),
    ]
    return min(near, key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(np.uint32)) & 1))


def test_fma_rounds_once_where_float64_rounds_twice():
    # Exactly 1 + 2**-23 + 2**-24 - 2**-70: float64 drops the last term and leaves a tie.
    a, b, c = np.array([2.0**-24 * (1 + 2.0**-23), 1 - 2.0**-23, 1 + 2.0**-23], np.float32)
    assert np.float32(np.float64(a) * np.float64(b) + np.float64(c)) == np.float32(1 + 2.0**-22)
    assert fma_f32(a, b, c) == c


def test_fma_equals_exact_fractions_on_adversarial_inputs():
    rng = np.random.default_rng(0)
    n = 3000
    a = (rng.standard_normal(n) * 2.0 ** rng.integers(-20, 20, n)).astype(np.float32)
    b = (rng.standard_normal(n) * 2.0 ** rng.integers(-20, 20, n)).astype(np.float32)
    c = -(a.astype(np.float64) * b) * (1 + rng.choice([0, 2**-24, 2**-25, -(2**-24), 1e-3], n))
    c = c.astype(np.float32)
    # Sums a hair beside a float32 tie: c a power of two, the product half an ulp and a bit.
    k = slice(0, n, 2)
    c[k] = (2.0 ** rng.integers(-6, 7, c[k].size)).astype(np.float32)
    half_ulp = c[k] * 2.0**-24 * rng.choice([-0.5, 1, 3], c[k].size)
    a[k] = (half_ulp * (1 + 2.0**-23 * rng.integers(-2, 3, c[k].size))).astype(np.float32)
    b[k] = (1 + 2.0**-23 * rng.integers(-1, 3, c[k].size)).astype(np.float32)
    a[1::10] = (2.0**-24 * c[1::10]).astype(np.float32)
    exact = [
        Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        for x, y, z in zip(a, b, c, strict=True)
    ]
    want = np.array([nearest_f32(value) for value in exact])
    assert np.array_equal(fma_f32(a, b, c), want)
    twice = (a.astype(np.float64) * b + c).astype(np.float32)
    plain = a * b + c
    assert (plain != want).any()
    assert (twice != want).any(), "the inputs must reach the double-rounding case"


def test_fma_broadcasts_and_keeps_shape():
    rng = np.random.default_rng(1)
    a = rng.standard_normal((3, 50, 60, 11)).astype(np.float32)
    m, b = rng.standard_normal((2, 11)).astype(np.float32)
    got = fma_f32(a, m, b)
    assert got.shape == a.shape
    assert got.dtype == np.float32
    assert np.array_equal(got[2, 7, 9], fma_f32(a[2, 7, 9], m, b))
    assert fma_f32(np.float32(2), np.float32(3), np.float32(1)).shape == ()


def test_rounding_is_half_to_even_and_saturates():
    value = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 300.0, -300.0, 254.5, 255.5], np.float32)
    assert round_clip(value, 0, 255, "uint8").tolist() == [0, 2, 2, 0, 0, 255, 0, 254, 255]
    assert round_clip(value, -128, 127, "int8").tolist() == [0, 2, 2, 0, -2, 127, -128, 127, 127]


def test_quantize_rounds_before_the_zero_point_and_takes_nan_and_infinity():
    q = QParams(1.0, 3)
    x = np.array([0.5, 1.5, 2.5, -3.5, np.nan, np.inf, -np.inf, 1e38], np.float32)
    assert quantize(x, q, "uint8").tolist() == [3, 5, 5, 0, 0, 255, 0, 255]
    assert quantize(x, QParams(1e-30, 3), "int8")[4:].tolist() == [-128, 127, -128, 127]


def test_quantize_layer_transposes():
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    layer = Quantize(name="q", inputs=("x",), output="y", perm=(0, 2, 3, 1))
    tensors = {"x": spec("x", x.shape, "float32"), "y": spec("y", (1, 3, 4, 2), scale=1.0, zero=5)}
    assert np.array_equal(compute(layer, tensors, [x]), x.transpose(0, 2, 3, 1).astype("uint8") + 5)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_int_conv_equals_torch_in_float64(groups, dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(groups)
    channels, outputs = 6, (6 if groups == 6 else 4)
    x = codes(rng, (2, 7, 8, channels), dtype)
    weight = codes(rng, (outputs, 3, 2, channels // groups), "int8")
    pads, strides, dilation, zero = (1, 0, 2, 1), (2, 1), (1, 2), 3
    tensors = {"x": spec("x", x.shape, dtype, zero=zero), "y": spec("y", (), dtype)}
    padded = np.pad(x.astype(float) - zero, ((0, 0), (1, 2), (0, 1), (0, 0)))
    acc = torch.nn.functional.conv2d(
        torch.from_numpy(padded.transpose(0, 3, 1, 2)),
        torch.from_numpy(weight.transpose(0, 3, 1, 2).astype(np.float64)),
        stride=strides, dilation=dilation, groups=groups,
    ).numpy().transpose(0, 2, 3, 1)  # fmt: skip
    tensors["y"] = spec("y", acc.shape, dtype)
    layer = IntConv(
        name="c", inputs=("x",), output="y", weight=weight, strides=strides, pads=pads,
        dilation=dilation, groups=groups, multiplier=np.full(outputs, 2.0**-8, np.float32),
        bias=np.full(outputs, 0.5, np.float32), low=-100 if dtype == "int8" else 9, high=120,
    )  # fmt: skip
    # A power of two keeps acc*2**-8 + 0.5 exact in float64, so ties really occur.
    want = np.clip(np.rint(acc * 2.0**-8 + 0.5) + 3, layer.low, layer.high).astype(dtype)
    assert np.array_equal(compute(layer, tensors, [x]), want)


def test_int_conv_residual_and_table():
    x = np.array([[[[1, 2]]]], np.uint8)
    table = np.arange(256, dtype=np.uint8)[::-1].copy()
    layer = IntConv(
        name="c", inputs=("x", "r"), output="y", weight=np.array([[[[3, -1]]]], np.int8),
        multiplier=np.array([0.5], np.float32), bias=np.array([1.0], np.float32), low=0, high=255,
        residual_scale=2.0, table=table,
    )  # fmt: skip
    tensors = {name: spec(name, (1, 1, 1, size)) for name, size in (("x", 2), ("r", 1), ("y", 1))}
    # (1 - 3)*3 - (2 - 3) = -5 -> -2.5 + 1 = -1.5; + 2*7 = 12.5 -> 12 + 3 -> table 240
    assert compute(layer, tensors, [x, np.array([[[[7]]]], np.uint8)]).item() == 240


def test_rounding_does_not_see_the_zero_point():
    """Just above one half, which a float32 sum with the zero point would round to the half."""
    x, above = np.ones((1, 1, 1, 1), np.uint8), np.nextafter(np.float32(0.5), np.float32(1))
    assert np.float32(128) + above == np.float32(128.5)
    layer = IntConv(
        name="c", inputs=("x",), output="y", weight=np.ones((1, 1, 1, 1), np.int8),
        multiplier=np.array([above]), bias=np.zeros(1, np.float32), low=0, high=255,
    )  # fmt: skip
    tensors = {"x": spec("x", x.shape, zero=0), "y": spec("y", x.shape, zero=128)}
    assert compute(layer, tensors, [x]).item() == 129
    mul = IntMul(name="m", inputs=("x", "x"), output="y", multiplier=float(above), low=0, high=255)
    assert compute(mul, tensors, [x, x]).item() == 129
    add = IntAdd(
        name="s", inputs=("x", "x"), output="y", scale_a=float(above), scale_b=0.0, low=0, high=255
    )
    assert compute(add, tensors, [x, x]).item() == 129


def test_int32_sums_wrap():
    x = np.full((1, 1, 1, 70000), 255, np.uint8)
    layer = IntConv(
        name="c", inputs=("x",), output="y", weight=np.full((1, 1, 1, 70000), 127, np.int8),
        multiplier=np.array([2.0**-24], np.float32), bias=np.zeros(1, np.float32), low=-128,
        high=127,
    )  # fmt: skip
    tensors = {"x": spec("x", x.shape), "y": spec("y", (1, 1, 1, 1), "int8")}
    assert compute(layer, tensors, [x]).item() == np.rint((252 * 127 * 70000 - 2**32) / 2**24) + 3


def test_dense_layer_of_rank_two():
    layer = FloatConv(
        name="d", inputs=("x",), output="y", weight=np.array([[[[1.0, 2.0]]]], np.float32),
        bias=np.array([0.5], np.float32), high=6.0,
    )  # fmt: skip
    tensors = {"x": spec("x", (3, 2), "float32"), "y": spec("y", (3, 1), "float32")}
    x = np.array([[1, 1], [2, 2], [-1, 0]], np.float32)
    assert compute(layer, tensors, [x]).tolist() == [[3.5], [6.0], [-0.5]]


def test_max_pool_border_never_wins():
    layer = MaxPool(
        name="p", inputs=("x",), output="y", kernel=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1)
    )
    shape = (1, 2, 2, 1)
    low = np.array([[-100, -90], [-80, -70]], np.int8).reshape(shape)
    tensors = {"x": spec("x", shape, "int8", zero=0), "y": spec("y", shape, "int8", zero=0)}
    assert (compute(layer, tensors, [low]) == -70).all()
    tensors = {name: spec(name, shape, "float32") for name in "xy"}
    assert (compute(layer, tensors, [low.astype(np.float32)]) == -70).all()


def test_average_pool_divisors():
    x = np.array([[4, 8], [12, 16]], np.uint8).reshape(1, 2, 2, 1)
    tensors = {name: spec(name, (1, 2, 2, 1), scale=1.0, zero=0) for name in "xy"}
    fields = {"name": "p", "inputs": ("x",), "output": "y", "kernel": (2, 2), "strides": (1, 1)}
    excluded = IntAvgPool(**fields, pads=(1, 1, 0, 0), count_include_pad=False, low=0, high=255)
    assert compute(excluded, tensors, [x]).ravel().tolist() == [4, 6, 8, 10]
    included = IntAvgPool(**fields, pads=(1, 1, 0, 0), count_include_pad=True, low=0, high=9)
    assert compute(included, tensors, [x]).ravel().tolist() == [1, 3, 4, 9]


def test_average_pool_border_is_real_zero():
    shape = (1, 1, 1, 1)
    tensors = {"x": spec("x", shape, scale=0.5, zero=100), "y": spec("y", (1, 2, 2, 1), zero=7)}
    layer = IntAvgPool(
        name="p", inputs=("x",), output="y", kernel=(2, 2), strides=(1, 1), pads=(1, 1, 1, 1),
        count_include_pad=True, low=0, high=255,
    )  # fmt: skip
    # One real 0.5*(140-100) = 20 in every window: 20/4 = 5.0, in steps of 0.05: 100 + 7.
    assert (compute(layer, tensors, [np.full(shape, 140, np.uint8)]) == 107).all()


def test_resize_linear_and_nearest():
    x = np.array([0, 10], np.uint8).reshape(1, 1, 2, 1)
    one = np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32)
    tensors = {"x": spec("x", x.shape), "y": spec("y", (1, 1, 3, 1))}
    linear = Resize(
        name="r", inputs=("x",), output="y", index_h=one[0], weight_h=one[1],
        index_w=np.array([[0, 1]] * 3, np.int32),
        weight_w=np.array([[1, 0], [0.75, 0.25], [0.25, 0.75]], np.float32),
    )  # fmt: skip
    assert compute(linear, tensors, [x]).ravel().tolist() == [0, 2, 8]  # 2.5 and 7.5, to even


def test_table_concat_add_mul():
    rng = np.random.default_rng(5)
    shape = (1, 2, 3, 4)
    a, b = codes(rng, shape, "int8"), codes(rng, shape, "int8")
    table = codes(rng, (256,), "int8")
    tensors = {name: spec(name, shape, "int8", zero=zero) for name, zero in (("a", -3), ("b", 5))}
    tensors["y"] = spec("y", shape, "int8", zero=2)
    lookup = Table(name="t", inputs=("a",), output="y", table=table)
    want = table[a.astype(int) + 128]
    assert np.array_equal(compute(lookup, tensors, [a]), want)
    both = Concat(name="k", inputs=("a", "b"), output="y", tables=(table, None))
    assert np.array_equal(compute(both, tensors, [a, b]), np.concatenate([want, b], -1))
    add = IntAdd(
        name="s",
        inputs=("a", "b"),
        output="y",
        scale_a=0.5,
        scale_b=0.25,
        low=-9,
        high=50,
    )
    exact = np.clip(np.rint((a + 3.0) * 0.5 + (b - 5.0) * 0.25) + 2, -9, 50)
    assert np.array_equal(compute(add, tensors, [a, b]), exact)
    mul = IntMul(name="m", inputs=("a", "b"), output="y", multiplier=2.0**-7, low=-128, high=99)
    gate = b[:, :1, :1]
    exact = np.clip(np.rint((a + 3.0) * (gate - 5.0) * 2.0**-7) + 2, -128, 99)
    assert np.array_equal(compute(mul, tensors, [a, gate]), exact)


def test_make_table_saturates_and_covers_every_code():
    x, y = QParams(0.1, -5), QParams(0.02, 0)
    table = make_table(lambda v: np.maximum(v, 0), x, y, "int8")
    real = (np.arange(-128, 128) + 5).astype(np.float32) * np.float32(0.1)
    want = np.clip(np.rint(np.maximum(real, 0) / np.float32(0.02)), -128, 127)
    assert table.dtype == np.int8
    assert np.array_equal(table, want)


def test_run_interprets_a_graph_and_frees_or_keeps():
    q = {"scale": 0.5, "zero": 10}
    tensors = {
        "x": spec("x", (1, 2, 2, 2), "float32"),
        "q": spec("q", (1, 2, 2, 2), **q),
        "c": spec("c", (1, 2, 2, 2), **q),
        "v": spec("v", (1, 8), **q),
        "f": spec("f", (1, 8), "float32"),
        "o": spec("o", (1, 8), "float32"),
    }
    layers = (
        Quantize(name="0", inputs=("x",), output="q"),
        Copy(name="1", inputs=("q",), output="c", perm=(0, 3, 1, 2)),
        View(name="2", inputs=("c",), output="v"),
        Dequantize(name="3", inputs=("v",), output="f"),
        Opaque(name="4", inputs=("f",), output="o", function=None, arguments=("f",)),
    )
    graph = LayerGraph(tensors, layers, ("x",), ("o",))
    x = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    out = run(graph, {"x": x}, opaque=lambda layer, arrays: [arrays[0] * 2])
    assert list(out) == ["o"]
    assert np.array_equal(out["o"], 2 * x.transpose(0, 3, 1, 2).reshape(1, 8))
    kept = run(graph, {"x": x}, opaque=lambda layer, arrays: [arrays[0] * 2], keep=True)
    assert set(kept) == set(tensors)
    with pytest.raises(ModelError, match="'4' of kind Opaque"):
        run(graph, {"x": x})
    with pytest.raises(DataError, match="'x' is missing"):
        run(graph, {})
    with pytest.raises(DataError, match=r"float64\[1, 2, 2, 2\]"):
        run(graph, {"x": x.astype(np.float64)})


def _within_one_step(layer, tensors, arrays):
    got = compute(layer, tensors, arrays).astype(int)
    want = simulate_layer(layer, tensors, arrays).astype(int)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1
    assert np.ptp(want) > 20, "the data must exercise the range"
    return got, want


def test_simulation_is_within_one_step():
    rng = np.random.default_rng(9)
    shape = (2, 6, 5, 7)
    a, b = codes(rng, shape), codes(rng, shape, "int8")
    qa, qb, qy = QParams(0.031, 120), QParams(0.017, -4), QParams(0.043, 77)
    tensors = {
        "a": TensorSpec("a", shape, "uint8", qa),
        "b": TensorSpec("b", shape, "int8", qb),
        "y": TensorSpec("y", shape, "uint8", qy),
    }
    ra, rb = qa.scale / qy.scale, qb.scale / qy.scale
    add = IntAdd(
        name="s", inputs=("a", "b"), output="y", scale_a=ra, scale_b=rb, low=0,
        high=255,
    )  # fmt: skip
    _within_one_step(add, tensors, [a, b])
    mul = IntMul(
        name="m", inputs=("a", "b"), output="y", multiplier=qa.scale * qb.scale / qy.scale, low=0,
        high=255,
    )  # fmt: skip
    _within_one_step(mul, tensors, [a, b])
    weight = codes(rng, (7, 3, 3, 7), "int8")
    conv = IntConv(
        name="c", inputs=("a", "b"), output="y", weight=weight, pads=(1, 1, 1, 1),
        multiplier=np.full(7, 1e-3, np.float32),
        bias=rng.standard_normal(7).astype(np.float32), low=0, high=255, residual_scale=0.3,
    )  # fmt: skip
    _within_one_step(conv, tensors, [a, b])
    dense = replace(conv, weight=weight[:, :1, :1], pads=(0, 0, 0, 0))
    high = {name: replace(t, shape=(2, 3, 2, 5, 1, 7)) for name, t in tensors.items()}
    _within_one_step(dense, high, [x.reshape(2, 3, 2, 5, 1, 7) for x in (a, b)])
    for include in (True, False):
        pool = IntAvgPool(
            name="p", inputs=("a",), output="y", kernel=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1),
            count_include_pad=include, low=0, high=255,
        )  # fmt: skip
        _within_one_step(pool, tensors, [a])
    index = np.stack([np.arange(9) // 2, np.minimum(np.arange(9) // 2 + 1, 4)], 1).astype(np.int32)
    weights = np.tile(np.array([[0.7, 0.3]], np.float32), (9, 1))
    resize = Resize(
        name="r", inputs=("a",), output="z", index_h=index, weight_h=weights, index_w=index,
        weight_w=weights,
    )  # fmt: skip
    tensors["z"] = TensorSpec("z", (2, 9, 9, 7), "uint8", qa)
    _within_one_step(resize, tensors, [a])


def test_the_border_is_real_zero():
    x = np.full((1, 2, 2, 1), 50, np.uint8)
    layer = IntConv(
        name="c", inputs=("x",), output="y", weight=np.ones((1, 3, 3, 1), np.int8),
        pads=(1, 1, 1, 1), multiplier=np.ones(1, np.float32), bias=np.zeros(1, np.float32), low=0,
        high=255,
    )  # fmt: skip
    tensors = {"x": spec("x", x.shape, zero=9), "y": spec("y", x.shape)}
    assert (compute(layer, tensors, [x]) == 4 * (50 - 9) + 3).all()
