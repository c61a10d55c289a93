"""Convolutions and dense layers over codes whose scale comes at run time, exact on every instruction set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conv_cases import Case, Problem, make
from kernel_harness import ROWS, check, every_isa
from tvmcomp.graph.layers import DynamicConv, TensorSpec
from tvmcomp.kernels.conv import build_conv
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.plan import Plan, Split
from tvmcomp.kernels.vector import Isa


def dynamic(case: Case, per_row: bool, seed: int = 0) -> Problem:
    """`case` with float32 results, and scale and zero point of x as tensors."""
    problem = make(case, seed)
    rng = np.random.default_rng(seed)
    given, tensors, layouts = problem.layer, dict(problem.tensors), dict(problem.layouts)
    shape = (*tensors["x"].shape[:3], 1) if per_row else (1, 1, 1, 1)
    scale = rng.uniform(0.001, 2, shape).astype(np.float32)
    zero = rng.integers(-128, 256, shape).astype(np.int32)
    if any(case.pads):
        zero[...] = tensors["x"].qparams.zero_point
    tensors["s"], tensors["z"] = (
        TensorSpec(name, shape, dtype) for name, dtype in (("s", "float32"), ("z", "int32"))
    )
    layouts["s"] = layouts["z"] = Layout.dense(shape, 4)
    arrays = [problem.arrays[0], scale, zero]
    for name in ("y", "r") if case.residual else ("y",):
        tensors[name] = TensorSpec(name, tensors[name].shape, "float32")
        layouts[name] = replace(layouts[name], itemsize=4)
    if case.residual:
        arrays.append((rng.standard_normal(tensors["r"].shape) * 1e3).astype(np.float32))
    layer = DynamicConv(
        name="conv",
        inputs=("x", "s", "z", "r") if case.residual else ("x", "s", "z"),
        output="y",
        weight=given.weight,
        strides=given.strides,
        pads=given.pads,
        dilation=given.dilation,
        groups=given.groups,
        weight_scale=rng.uniform(0.001, 0.1, case.outputs).astype(np.float32),
        bias=(rng.standard_normal(case.outputs) * 100).astype(np.float32),
        low=-np.inf if case.low is None else case.low,
        high=np.inf if case.high is None else case.high,
    )
    return Problem(layer, tensors, layouts, arrays)


def run(row: tuple[Isa, str], problem: Problem, plan: Plan | None = None) -> np.ndarray:
    def build(*arguments):
        return build_conv(*arguments, plan=plan)

    return check(build, row, problem.layer, problem.tensors, problem.layouts, arrays=problem.arrays)


CONVS = {
    "1x1": Case(),
    "3x3 into a halo": Case(kernel=(3, 3), pads=(1, 1, 1, 1), y_halo=2),
    "stride 2, s8": Case(
        height=9, width=8, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), x_dtype="int8"
    ),
    "batch, residual": Case(batch=2, residual="uint8", r_halo=1, outputs=24, low=-50.0),
    "groups": Case(inputs=32, outputs=48, groups=2, kernel=(3, 3), pads=(1, 1, 1, 1)),
    "narrow weights, clip": Case(narrow=True, inputs=21, outputs=19, low=0.0, high=6.0),
}
DENSE = {
    "rows": Case(height=1, width=29, inputs=40, outputs=70),
    "rows, s8": Case(height=1, width=5, inputs=33, outputs=10, x_dtype="int8", narrow=True),
    "images of rows": Case(batch=2, height=3, width=5, inputs=24, outputs=32, x_pitch=48),
    "one row": Case(height=1, width=1, inputs=64, outputs=200, low=0.0),
    "residual": Case(height=4, width=9, inputs=64, outputs=48, residual="uint8", y_pitch=64),
}


@every_isa
@pytest.mark.parametrize("name", CONVS)
def test_one_scale(row, name):
    run(row, dynamic(CONVS[name], per_row=False))


@every_isa
@pytest.mark.parametrize("name", DENSE)
def test_a_scale_per_row(row, name):
    run(row, dynamic(DENSE[name], per_row=True))


PLANS = {
    "channels, prefetch": Plan((2, 3), 4, 3, Split.CHANNELS, prefetch=True),
    "rows": Plan((1, 11), 2, 1, Split.ROWS),
    "chunks": Plan((3, 2), 3, 7, Split.ROWS, chunk=4),
}


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_walks_the_scales(name):
    # Pitches differ, so rows are not one column, and threads share them.
    case = Case(batch=2, height=13, width=11, inputs=40, outputs=168, x_halo=1)
    run(ROWS[0].values[0], dynamic(case, per_row=True), PLANS[name])


def test_a_scale_that_is_nan_makes_its_row_nan():
    problem = dynamic(replace(DENSE["rows"], low=0.0, high=1.0), per_row=True)
    problem.arrays[1][0, 0, 7, 0] = np.nan
    y = run(ROWS[0].values[0], problem)
    assert np.isnan(y[0, 0, 7]).all()
    assert np.isfinite(np.delete(y, 7, axis=2)).all()


def test_one_scale_and_a_scale_per_row_are_two_functions():
    isa = ROWS[0].values[0][0]
    problems = [dynamic(DENSE["rows"], per_row) for per_row in (True, False)]
    kernels = [build_conv(p.layer, p.tensors, p.layouts, isa) for p in problems]
    assert kernels[0].key != kernels[1].key
