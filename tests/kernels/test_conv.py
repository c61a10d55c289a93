"""Convolution kernels on every instruction set against the numpy definition: exact on codes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from conv_cases import Case, make
from kernel_harness import ROWS, check, every_isa, run_kernel
from tvmcomp.kernels.conv import build_conv
from tvmcomp.kernels.plan import Plan, Split
from tvmcomp.kernels.vector import GENERIC, Isa

TOLERANCE = 1e-5
VNNI = Isa("avx512-vnni", 16, vnni=True, vbmi=True, fma=True, madd=True)


def run(row: tuple[Isa, str], case: Case, plan: Plan | None = None) -> None:
    problem = make(case)
    check(
        partial(build_conv, plan=plan),
        row,
        problem.layer,
        problem.tensors,
        problem.layouts,
        arrays=problem.arrays,
        rtol=TOLERANCE * case.floats,
    )


def floats(case: Case) -> Case:
    residual = case.residual and "float32"
    return replace(case, x_dtype="float32", y_dtype="float32", residual=residual)


SHAPES = {
    "1x1": Case(),
    "3x3": Case(kernel=(3, 3), pads=(1, 1, 1, 1)),
    "3x3 into a halo": Case(kernel=(3, 3), pads=(1, 1, 1, 1), y_halo=2),
    "halo wider than pads": Case(kernel=(3, 3), pads=(1, 1, 1, 1), x_halo=3),
    "stride 2": Case(height=9, width=8, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    "strides differ": Case(height=9, width=8, kernel=(3, 2), strides=(2, 1)),
    "dilated": Case(height=9, width=9, kernel=(3, 3), pads=(2, 2, 2, 2), dilation=(2, 2)),
    "asymmetric pads": Case(height=7, width=8, kernel=(3, 3), strides=(2, 2), pads=(0, 0, 1, 1)),
    "top and left only": Case(height=7, width=8, kernel=(2, 2), pads=(1, 1, 0, 0)),
    "batch": Case(batch=3, height=5, width=7, kernel=(3, 3), pads=(1, 1, 1, 1), y_halo=1),
    "dense": Case(height=1, width=3, inputs=40, outputs=70),
    "one row": Case(height=1, width=1, inputs=64, outputs=1000),
    "10 classes": Case(height=1, width=5, inputs=33, outputs=10),
    "odd channels, pitched": Case(inputs=13, outputs=21, x_pitch=16, y_pitch=32, kernel=(2, 2)),
    "odd channels, dense": Case(inputs=13, outputs=21, kernel=(3, 3)),
    "stem": Case(height=17, width=19, inputs=3, kernel=(7, 7), strides=(2, 2), pads=(3, 3, 3, 3)),
    "dilated stem": Case(height=9, width=9, inputs=3, kernel=(3, 3), dilation=(2, 2)),
    "residual": Case(residual="uint8", kernel=(3, 3), pads=(1, 1, 1, 1)),
    "residual of other layout": Case(residual="uint8", r_halo=2, r_pitch=48, y_pitch=40, y_halo=1),
    "residual, batch": Case(residual="uint8", batch=2, r_halo=1, outputs=24),
    "groups": Case(inputs=32, outputs=96, groups=4, kernel=(3, 3), pads=(1, 1, 1, 1)),
    "narrow groups": Case(inputs=24, outputs=20, groups=4, residual="uint8", y_pitch=32),
    "depthwise": Case(inputs=5, outputs=10, groups=5, kernel=(3, 3), pads=(1, 1, 1, 1)),
    "tall": Case(height=23, width=3, inputs=8, kernel=(3, 3), pads=(1, 1, 1, 1)),
}


@every_isa
@pytest.mark.parametrize("name", SHAPES)
def test_codes_are_exact(row: tuple[Isa, str], name: str) -> None:
    run(row, SHAPES[name])


@pytest.mark.parametrize("row", [ROWS[0], ROWS[2]])
@pytest.mark.parametrize("name", SHAPES)
def test_floats(row: tuple[Isa, str], name: str) -> None:
    run(row, floats(SHAPES[name]))


BASE = Case(height=5, width=5, inputs=20, outputs=40, kernel=(3, 3), pads=(1, 1, 1, 1), y_halo=1)

EPILOGUES = {
    "s8 to u8": replace(BASE, x_dtype="int8"),
    "u8 to s8": replace(BASE, y_dtype="int8", zero_point=-5),
    "s8 to s8, residual": replace(BASE, x_dtype="int8", y_dtype="int8", residual="int8"),
    "residual of other dtype": replace(BASE, residual="int8"),
    "relu": replace(BASE, low=7),
    "relu6": replace(BASE, low=7, high=199),
    "clip of s8": replace(BASE, y_dtype="int8", low=-100, high=3),
    "saturating": replace(BASE, scale=8.0, residual="uint8"),
    "beyond int32": replace(BASE, scale=1e8),
    "beyond int32, s8": replace(BASE, scale=1e8, y_dtype="int8", low=-100),
    "narrow weights": replace(BASE, narrow=True),
    "narrow weights, s8": replace(BASE, narrow=True, x_dtype="int8"),
    "weights of 9 bits": replace(BASE, wide=True),
    "weights of 9 bits, s8, odd": replace(
        BASE, wide=True, x_dtype="int8", inputs=13, groups=13, outputs=26
    ),
    "float result": replace(BASE, y_dtype="float32", outputs=21),
    "float result, s8, clipped": replace(
        BASE, x_dtype="int8", y_dtype="float32", low=90.5, high=130.25
    ),
    "float result, residual of codes": replace(BASE, y_dtype="float32", residual="int8"),
    "float result, float residual": replace(BASE, y_dtype="float32", residual="float32"),
}


@every_isa
@pytest.mark.parametrize("name", EPILOGUES)
def test_epilogue_is_exact(row: tuple[Isa, str], name: str) -> None:
    run(row, EPILOGUES[name])


@every_isa
def test_rounding_does_not_see_the_zero_point(row: tuple[Isa, str]) -> None:
    """Just above a half: a float32 sum with the zero point would lie on it."""
    for dtype, zero in (("uint8", 128), ("int8", -128)):
        base = replace(BASE, kernel=(1, 1), pads=(0, 0, 0, 0), inputs=1)
        problem = make(replace(base, y_dtype=dtype, zero_point=zero))
        above = np.full(40, np.nextafter(np.float32(0.5), np.float32(1)))
        ones = np.ones_like(problem.layer.weight)
        layer = replace(problem.layer, weight=ones, multiplier=above, bias=0 * above)
        x = problem.arrays[0] % 2 + 3  # 3 is the zero point
        y = check(build_conv, row, layer, problem.tensors, problem.layouts, arrays=[x])
        assert (y == zero + x.astype(int) - 3).all()


@every_isa
def test_ties_round_to_even(row: tuple[Isa, str]) -> None:
    problem = make(replace(BASE, kernel=(1, 1), pads=(0, 0, 0, 0), inputs=1, zero_point=0))
    ones = np.ones_like(problem.layer.weight)
    halves = np.full(40, 0.5, np.float32)
    layer = replace(problem.layer, weight=ones, multiplier=halves, bias=0 * halves)
    y = check(build_conv, row, layer, problem.tensors, problem.layouts, arrays=problem.arrays)
    assert set(np.unique(y % 2)) == {0, 1}
    odd = (problem.arrays[0][..., 0] >= 3) & (
        problem.arrays[0][..., 0] % 4 == 0
    )  # n + 0.5 with n even
    assert odd.any()
    assert (y[odd] % 2 == 0).all()


@every_isa
def test_a_value_that_rounds_up_to_the_end_of_int32_saturates(row: tuple[Isa, str]) -> None:
    problem = make(replace(BASE, kernel=(1, 1), pads=(0, 0, 0, 0), inputs=1))
    ones = np.ones_like(problem.layer.weight)
    multiplier = np.full(40, 0.4, np.float32)
    bias = np.full(40, 2**31 - 128, np.float32)
    layer = replace(problem.layer, weight=ones, multiplier=multiplier, bias=bias)
    y = check(build_conv, row, layer, problem.tensors, problem.layouts, arrays=problem.arrays)
    assert (y == 255).all()


@pytest.mark.parametrize("row", [ROWS[0]])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_table(row: tuple[Isa, str], dtype: str) -> None:
    run(row, replace(BASE, y_dtype=dtype, table=True, low=0, high=100))


@pytest.mark.parametrize("row", [ROWS[0], ROWS[2]])
def test_float_clip_and_residual(row: tuple[Isa, str]) -> None:
    run(row, replace(floats(replace(BASE, residual="uint8")), low=0.0, high=1.5))


@pytest.mark.parametrize("row", [ROWS[0], ROWS[2]])
def test_nan_passes_a_float_clip(row: tuple[Isa, str]) -> None:
    problem = make(replace(floats(BASE), low=0.0, high=1.0))
    problem.arrays[0][0, 0, 0, 0] = np.nan
    isa, mcpu = row
    kernel = build_conv(problem.layer, problem.tensors, problem.layouts, isa)
    y = run_kernel(
        kernel,
        mcpu,
        problem.layer,
        problem.tensors,
        problem.layouts,
        problem.arrays,
        np.random.default_rng(0),
    )
    assert np.isnan(y[0, :2, :2]).all()
    assert np.isfinite(y[0, 2:, 2:]).all()


LARGE = Case(
    batch=2,
    height=13,
    width=11,
    inputs=40,
    outputs=168,
    kernel=(3, 3),
    pads=(1, 1, 1, 1),
    residual="uint8",
    y_halo=1,
)
PLANS = {
    "channels": Plan((1, 4), 2, 4, Split.CHANNELS),
    "channels, prefetch": Plan((2, 3), 4, 3, Split.CHANNELS, prefetch=True),
    "rows": Plan((1, 11), 2, 1, Split.ROWS),
    "chunks": Plan((3, 2), 3, 7, Split.ROWS, chunk=4),
    "one chunk": Plan((13, 1), 1, 100, Split.ROWS, chunk=100),
    "one pixel": Plan((1, 1), 8, 2, Split.CHANNELS),
    "larger than the image": Plan((20, 1), 16, 2, Split.ROWS),
}


@pytest.mark.parametrize("row", [ROWS[0], ROWS[2]])
@pytest.mark.parametrize("name", PLANS)
def test_every_plan_computes_the_same(row: tuple[Isa, str], name: str) -> None:
    run(row, LARGE, PLANS[name])


@pytest.mark.parametrize("split", list(Split))
def test_every_plan_serves_groups(split: Split) -> None:
    case = Case(inputs=32, outputs=144, groups=4, residual="uint8", batch=2)
    run(ROWS[0].values[0], case, Plan((2, 3), 2, 3, split, chunk=2, prefetch=True))


def test_equal_shapes_share_one_function() -> None:
    first, second = make(BASE, seed=1), make(BASE, seed=2)
    kernels = [build_conv(p.layer, p.tensors, p.layouts, VNNI) for p in (first, second)]
    assert kernels[0].key == kernels[1].key
    assert kernels[0].func.same_as(kernels[1].func)
    assert not np.array_equal(kernels[0].constants, kernels[1].constants)


@pytest.mark.parametrize(
    "change",
    [
        {"high": 200},
        {"zero_point": 8},
        {"y_pitch": 48},
        {"residual": "uint8"},
        {"x_dtype": "int8"},
        {"strides": (2, 1)},
        {"scale": 1e9},
    ],
)
def test_different_functions_have_different_keys(change: dict[str, object]) -> None:
    keys = set()
    for case in (BASE, replace(BASE, **change)):
        problem = make(case)
        keys.add(build_conv(problem.layer, problem.tensors, problem.layouts, VNNI).key)
    assert len(keys) == 2


def test_the_isa_is_part_of_the_key() -> None:
    problem = make(BASE)
    rows = (VNNI, replace(VNNI, vnni=False), GENERIC)
    kernels = [build_conv(problem.layer, problem.tensors, problem.layouts, isa) for isa in rows]
    assert len({kernel.key for kernel in kernels}) == 3


@pytest.mark.parametrize(
    ("case", "isa"),
    [
        (Case(table=True), replace(VNNI, vbmi=False)),
        (Case(table=True), GENERIC),
        (Case(kernel=(3, 3), pads=(1, 1, 1, 1), x_halo=0), VNNI),
    ],
    ids=["table without vbmi", "table, generic", "no halo"],
)
def test_what_it_does_not_serve(case: Case, isa: Isa) -> None:
    problem = make(case)
    assert build_conv(problem.layer, problem.tensors, problem.layouts, isa) is None
