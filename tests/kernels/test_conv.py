"""Convolution kernels on every instruction set against the numpy definition: exact on codes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conv_cases import Case, make
from kernel_harness import check, every_isa
from tvmcomp.kernels.conv import build_conv
from tvmcomp.kernels.vector import Isa

TOLERANCE = 1e-5


def run(row: tuple[Isa, str], case: Case) -> None:
    problem = make(case)
    check(
        build_conv,
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
    "tall": Case(height=23, width=3, inputs=8, kernel=(3, 3), pads=(1, 1, 1, 1)),
}


@every_isa
@pytest.mark.parametrize("name", SHAPES)
def test_codes_are_exact(row: tuple[Isa, str], name: str) -> None:
    run(row, SHAPES[name])


@every_isa
@pytest.mark.parametrize("name", SHAPES)
def test_floats(row: tuple[Isa, str], name: str) -> None:
    run(row, floats(SHAPES[name]))
