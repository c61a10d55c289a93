"""IntAdd and IntMul against their definition, in every layout and on every ISA row."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import check, every_isa, layout, spec
from tvmcomp.compress.reference import fma_f32
from tvmcomp.graph.layers import IntAdd, IntAffine, IntMul
from tvmcomp.kernels.binary import build_add, build_affine, build_mul
from tvmcomp.kernels.vector import GENERIC

SHAPES = [((1, 1, 1, 1), 0, 0), ((2, 3, 4, 7), 1, 0), ((1, 5, 2, 67), 2, 3), ((2, 2, 9, 40), 0, 24)]
TYPES = [("uint8", "uint8", "uint8"), ("int8", "int8", "int8"), ("uint8", "int8", "uint8")]


def layouts_of(tensors, halo, pad):
    return {
        "a": layout(tensors["a"], halo // 2, pad),
        "b": layout(tensors["b"], halo, 0),
        "y": layout(tensors["y"], halo, pad),
    }


@every_isa
@pytest.mark.parametrize("types", TYPES)
def test_add(row, types):
    for shape, halo, pad in SHAPES:
        tensors = {
            name: spec(name, shape, dtype, zero=-9 if dtype == "int8" else 130)
            for name, dtype in zip("aby", types, strict=True)
        }
        low, high = (-100, 90) if types[2] == "int8" else (4, 251)
        layer = IntAdd(
            name="s", inputs=("a", "b"), output="y", scale_a=0.731, scale_b=float(np.float32(1.37)),
            low=low, high=high,
        )  # fmt: skip
        got = check(build_add, row, layer, tensors, layouts_of(tensors, halo, pad))
        if got.size > 500:
            assert (got.min(), got.max()) == (low, high), "both clips must be reached"


@every_isa
def test_add_rounds_half_to_even(row):
    tensors = {name: spec(name, (1, 1, 16, 16), zero=0) for name in "aby"}
    a = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    layer = IntAdd(
        name="s", inputs=("a", "b"), output="y", scale_a=0.5, scale_b=0.0, low=0, high=255
    )
    got = check(
        build_add, row, layer, tensors, layouts_of(tensors, 0, 0), arrays=[a, np.zeros_like(a)]
    )
    assert got.ravel()[:8].tolist() == [0, 0, 1, 2, 2, 2, 3, 4]


@every_isa
def test_add_is_a_fused_multiply_add(row):
    """Scales found by search, for which separate multiply and add round to another code."""
    rng = np.random.default_rng(0)
    a = np.arange(256, dtype=np.uint8).reshape(1, 1, 1, 256)
    b = np.ones_like(a)
    while True:
        # Sums near a half: a * scale + bias = k + 0.5 up to float32's last bit.
        scale = np.float32(rng.uniform(0.2, 0.9))
        bias = np.float32(rng.integers(1, 40) + 0.5 - np.float64(scale) * rng.integers(10, 200))
        fused = np.rint(fma_f32(a, scale, bias)).clip(0, 255)
        apart = np.rint(a.astype(np.float32) * scale + bias).clip(0, 255)
        if (fused != apart).any():
            break
    tensors = {name: spec(name, a.shape, zero=0) for name in "aby"}
    layer = IntAdd(
        name="s", inputs=("a", "b"), output="y", scale_a=float(scale), scale_b=float(bias), low=0,
        high=255,
    )  # fmt: skip
    got = check(build_add, row, layer, tensors, layouts_of(tensors, 0, 0), arrays=[a, b])
    assert not np.array_equal(got, apart)


@every_isa
@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("gated", [False, True])
def test_mul(row, types, gated):
    for shape, halo, pad in SHAPES:
        gate = (shape[0], 1, 1, shape[3]) if gated else shape
        tensors = {
            name: spec(name, size, dtype, zero=zero if dtype == "int8" else zero + 100)
            for name, size, dtype, zero in zip(
                "aby", (shape, gate, shape), types, (5, -20, 17), strict=True
            )
        }
        low, high = (-90, 101) if types[2] == "int8" else (7, 240)
        layer = IntMul(
            name="m", inputs=("a", "b"), output="y", multiplier=0.0197, low=low, high=high
        )
        got = check(build_mul, row, layer, tensors, layouts_of(tensors, halo, pad))
        if got.size > 500:
            assert (got.min(), got.max()) == (low, high), "both clips must be reached"


SMALLER = [((2, 3, 4, 70), (4, 1)), ((2, 3, 2, 5, 67), (3, 1, 5, 67)), ((3, 9, 20), (3, 1, 20))]


@every_isa
@pytest.mark.parametrize("types", TYPES[:2])
@pytest.mark.parametrize("kind", [IntAdd, IntMul])
def test_a_second_operand_of_a_smaller_shape(row, types, kind):
    zero = -9 if types[0] == "int8" else 130
    for whole, small in SMALLER:
        tensors = {
            name: spec(name, shape, dtype, zero=zero)
            for name, shape, dtype in zip("aby", (whole, small, whole), types, strict=True)
        }
        low, high = (-100, 90) if types[2] == "int8" else (4, 251)
        fields = {"scale_a": 0.731, "scale_b": 0.4} if kind is IntAdd else {"multiplier": 0.0197}
        layer = kind(name="s", inputs=("a", "b"), output="y", low=low, high=high, **fields)
        build = build_add if kind is IntAdd else build_mul
        check(build, row, layer, tensors, layouts_of(tensors, 0, 3))


@every_isa
@pytest.mark.parametrize("types", TYPES[:2])
def test_affine(row, types):
    rng = np.random.default_rng(1)
    for shape, multiplier, bias, halo in [
        ((2, 3, 4, 7), (), (7,), 1),
        ((1, 9, 130), (130,), (9, 130), 0),
        ((2, 2, 3, 5, 16), (3, 1, 16), (5, 1), 0),
        ((3, 200), (1, 200), (1,), 0),
    ]:
        x, y = spec("x", shape, types[0]), spec("y", shape, types[1])
        low, high = (-100, 90) if types[1] == "int8" else (4, 251)
        layer = IntAffine(
            name="f", inputs=("x",), output="y", low=low, high=high,
            multiplier=np.asarray(rng.uniform(-2, 2, multiplier), np.float32),
            bias=np.asarray(rng.uniform(-99, 99, bias), np.float32),
        )  # fmt: skip
        layouts = {"x": layout(x, 0, 3), "y": layout(y, halo, 0)}
        check(build_affine, row, layer, {"x": x, "y": y}, layouts)


def test_other_shapes_are_refused():
    tensors = {
        "a": spec("a", (1, 2, 2, 4)),
        "b": spec("b", (1, 2, 2, 3)),
        "y": spec("y", (1, 2, 2, 4)),
    }
    layouts = {name: layout(tensor) for name, tensor in tensors.items()}
    layer = IntMul(name="m", inputs=("a", "b"), output="y", multiplier=1.0, low=0, high=255)
    assert build_mul(layer, tensors, layouts, GENERIC) is None
    layer = IntAdd(
        name="s", inputs=("a", "b"), output="y", scale_a=1.0, scale_b=1.0, low=0, high=255
    )
    assert build_add(layer, tensors, layouts, GENERIC) is None
