"""What the emitter writes, by shape and instruction set; its results are in test_conv.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conv_cases import Case, make
from tvmcomp.kernels.conv import build_conv
from tvmcomp.kernels.plan import Plan, Split
from tvmcomp.kernels.vector import GENERIC, Isa

VNNI = Isa("avx512-vnni", 16, vnni=True, vbmi=True, fma=True, madd=True)
AVX512 = replace(VNNI, name="avx512", vnni=False)
AVX2 = Isa("avx2", 8, fma=True, madd=True)
SMALL = Case(inputs=8, outputs=32, height=2, width=3)
LARGE = Case(inputs=256, outputs=128, height=6, width=8)
FLOATS = replace(SMALL, x_dtype="float32", y_dtype="float32")


def text(case: Case, isa: Isa = VNNI, plan: Plan | None = None) -> str:
    problem = make(case)
    return str(build_conv(problem.layer, problem.tensors, problem.layouts, isa, plan).func)


@pytest.mark.parametrize(
    ("case", "isa", "wanted"),
    [
        (SMALL, VNNI, "llvm.x86.avx512.vpdpbusd.512"),
        (SMALL, AVX512, "llvm.x86.avx512.pmaddw.d.512"),
        (SMALL, AVX2, "llvm.x86.avx2.pmadd.wd"),
        (replace(SMALL, narrow=True), AVX2, "llvm.x86.avx2.pmadd.ub.sw"),
        (FLOATS, VNNI, '"float32x16", "llvm.fma"'),
        (FLOATS, AVX2, '"float32x8", "llvm.fma"'),
    ],
)
def test_instruction(case: Case, isa: Isa, wanted: str) -> None:
    assert wanted in text(case, isa)


@pytest.mark.parametrize("case", [SMALL, FLOATS, replace(SMALL, narrow=True, residual="uint8")])
def test_no_x86_instruction_without_a_flag_for_it(case: Case) -> None:
    assert "x86" not in text(case, GENERIC)


def test_weights_of_eight_bits_never_saturate() -> None:
    assert "pmadd.ub.sw" not in text(SMALL, AVX2)


def test_operands() -> None:
    for case, count in ((SMALL, 3), (replace(SMALL, residual="uint8"), 4)):
        problem = make(case)
        kernel = build_conv(problem.layer, problem.tensors, problem.layouts, VNNI)
        names = [str(p.name) for p in kernel.func.params]
        assert names[1::2] == [f"{name}_offset" for name in names[::2]]
        assert len(names) == 2 * count


def test_threads_share_only_what_is_worth_it() -> None:
    assert "T.parallel" not in text(SMALL)
    for split in Split:
        assert text(LARGE, plan=Plan((8, 1), 2, 2, split)).count("T.parallel") == 1


def test_prefetch_is_the_plans_choice() -> None:
    plan = Plan((8, 1), 2, 2, Split.CHANNELS)
    assert "llvm.prefetch" not in text(LARGE, plan=plan)
    assert "llvm.prefetch" in text(LARGE, plan=replace(plan, prefetch=True))


def test_full_range_needs_no_clip() -> None:
    clip = "T.max"
    assert clip not in text(SMALL)
    assert clip in text(replace(SMALL, low=7))
