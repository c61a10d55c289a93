"""Loops, addressed without running them, against running them."""

from __future__ import annotations

import time

import numpy as np

from tvmcomp.vta.isa import Alu, Gemm
from tvmcomp.vta.loops import loops_of, reached, steps
from tvmcomp.vta.portable import _pairs, unportable_uops
from vta_workloads import CONFIG


def random_gemm(rng):
    n, out, inner = (int(i) for i in rng.integers(1, 5, 3))
    names = [f"{of}_factor_{loop}" for of in ("dst", "src", "wgt") for loop in ("out", "in")]
    factors = {name: int(rng.integers(0, 4)) for name in names}
    uops = rng.integers(0, 4, (n, 3))
    return Gemm(uop_end=n, iter_out=out, iter_in=inner, **factors), uops


def by_running(i, uops):
    return np.array([
        [u[0] + o * i.dst_factor_out + n * i.dst_factor_in,
         u[1] + o * i.src_factor_out + n * i.src_factor_in,
         u[2] + o * i.wgt_factor_out + n * i.wgt_factor_in]
        for o in range(i.iter_out) for n in range(i.iter_in) for u in uops
    ])  # fmt: skip


def test_steps_and_reach_are_those_of_the_loops():
    rng = np.random.default_rng(0)
    for _ in range(200):
        gemm, uops = random_gemm(rng)
        every, loops = by_running(gemm, uops), loops_of(gemm)
        assert (steps(uops, loops, np.arange(len(every))) == every).all()
        for column in range(3):
            assert reached(uops, loops, column).tolist() == sorted(set(every[:, column].tolist()))


def test_a_few_pairs_of_iterations_stand_for_all():
    rng = np.random.default_rng(1)
    for _ in range(300):
        gemm, uops = random_gemm(rng)
        every = by_running(gemm, uops)
        for distance in (1, 2):
            before, after = _pairs(gemm, uops, distance)
            few = {tuple(d) for d in (after - before)[:, :2].tolist()}
            assert few == {tuple(d) for d in (every[distance:] - every[:-distance])[:, :2].tolist()}


def test_the_longest_loops_take_no_time():
    longest = Alu(uop_end=8192, iter_out=16383, iter_in=16383, dst_factor_in=0, use_imm=1)
    uops = np.stack([np.arange(8192) % 2048, *np.zeros((2, 8192), np.int64)], axis=1)
    begun = time.process_time()
    assert unportable_uops(longest, uops, CONFIG) is None
    assert len(reached(uops, loops_of(longest), 0)) == 2048
    assert time.process_time() - begun < 1
