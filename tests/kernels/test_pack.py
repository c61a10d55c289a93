"""The constant blob: weights there and back, and every scale beside its channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conv_cases import Case, Problem, make
from tvmcomp.kernels.conv import build_spec
from tvmcomp.kernels.pack import pack, pack_weights, parts, places, unpack_weights
from tvmcomp.kernels.plan import Plan, Split
from tvmcomp.kernels.spec import Spec
from tvmcomp.kernels.vector import GENERIC, Isa

VNNI = Isa("avx512-vnni", 16, vnni=True, vbmi=True, fma=True, madd=True)
AVX2 = Isa("avx2", 8, fma=True, madd=True)

CASES = {
    "1x1": Case(inputs=16, outputs=32),
    "odd": Case(inputs=13, outputs=50, kernel=(3, 2), x_pitch=16),
    "stem": Case(inputs=3, outputs=24, kernel=(3, 3)),
    "groups": Case(inputs=24, outputs=60, groups=3, kernel=(3, 3)),
    "s8": Case(inputs=8, outputs=40, x_dtype="int8"),
    "floats": Case(inputs=5, outputs=40, kernel=(2, 2), x_dtype="float32", y_dtype="float32"),
}


def build(case: Case, isa: Isa = VNNI, vectors: int = 2) -> tuple[Problem, Spec]:
    problem = make(case)
    plan = Plan((1, 2), vectors, 4, Split.ROWS)
    return problem, build_spec(problem.layer, problem.tensors, problem.layouts, isa, plan)


@pytest.mark.parametrize("isa", [VNNI, AVX2, GENERIC], ids=lambda isa: isa.name)
@pytest.mark.parametrize("vectors", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_weights_there_and_back(name: str, vectors: int, isa: Isa) -> None:
    problem, spec = build(CASES[name], isa, vectors)
    weight = problem.layer.weight
    packed = pack_weights(weight, spec)
    assert packed.nbytes == spec.geometry.groups * places(spec).group
    np.testing.assert_array_equal(unpack_weights(packed, spec, weight.shape), weight)
    # What is not a weight is zero: garbage channels of x meet it.
    assert np.count_nonzero(packed) == np.count_nonzero(weight)


def test_order_of_weights() -> None:
    problem, spec = build(Case(inputs=8, outputs=48))
    weight = problem.layer.weight.reshape(48, 8)
    packed = pack_weights(problem.layer.weight, spec)
    first = packed[: 2 * 2 * 16 * 4].reshape(2, 2, 16, 4)  # block 0: step, vector, lane, unit
    assert first[1, 1, 5, 2] == weight[16 + 5, 4 + 2]
    second = packed[2 * 2 * 16 * 4 :].reshape(2, 1, 16, 4)  # a block of the one vector left
    assert second[1, 0, 3, 1] == weight[32 + 3, 4 + 1]


@pytest.mark.parametrize("name", ["odd", "groups", "s8"])
def test_scales_lie_by_vector(name: str) -> None:
    problem, spec = build(CASES[name])
    layer, at, count = problem.layer, places(spec), parts(spec)
    blob = pack(layer, spec, -7)
    groups, per_group = layer.groups, spec.geometry.outputs
    rows = groups * spec.vectors
    scales = blob[at.scales : at.scales + rows * count * 64].view(np.float32)
    scales = scales.reshape(groups, spec.vectors, count, 16)
    for channel in range(len(layer.bias)):
        group, inner = divmod(channel, per_group)
        vector, lane = divmod(inner, 16)
        assert scales[group, vector, 0, lane] == layer.multiplier[channel]
        assert scales[group, vector, 1, lane] == layer.bias[channel]
        if count == 3:
            start = scales[group, vector, 2].view(np.int32)[lane]
            assert start == -7 * layer.weight[channel].astype(int).sum()


def test_scalars_and_table() -> None:
    problem, spec = build(Case(residual="uint8", table=True))
    blob, at = pack(problem.layer, spec), places(spec)
    assert blob[:4].view(np.float32)[0] == np.float32(problem.layer.residual_scale)
    assert blob[at.zero : at.zero + 4].view(np.int32)[0] == 0
    np.testing.assert_array_equal(blob[at.table : at.table + 256], problem.layer.table)


@pytest.mark.parametrize("name", CASES)
def test_parts_are_aligned(name: str) -> None:
    problem, spec = build(replace(CASES[name], table=name == "1x1"))
    at = places(spec)
    assert at.scales % 64 == at.weights % 64 == at.table % 64 == 0
    assert at.weights + spec.geometry.groups * at.group == pack(problem.layer, spec).nbytes
