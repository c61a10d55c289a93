"""Which scheme covers which."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tvmcomp.target import CodeRange, Scheme

U8 = CodeRange("uint8", 0, 255)
S8 = CodeRange("int8", -127, 127, symmetric=True)
VNNI = Scheme(U8, S8, granularity=("tensor", "axis"))


@pytest.mark.parametrize(
    "asked",
    [
        CodeRange("int8", -127, 127, symmetric=True),
        CodeRange("int8", -7, 7, symmetric=True),
    ],
)
def test_range_covers(asked: CodeRange) -> None:
    assert S8.covers(asked)


@pytest.mark.parametrize(
    "asked",
    [
        CodeRange("int8", -128, 127, symmetric=True),
        CodeRange("int8", -127, 128, symmetric=True),
        CodeRange("uint8", 0, 127, symmetric=True),
        CodeRange("int8", -127, 127),
    ],
)
def test_range_does_not_cover(asked: CodeRange) -> None:
    assert not S8.covers(asked)


def test_affine_range_covers_symmetric() -> None:
    assert U8.covers(CodeRange("uint8", 0, 255, symmetric=True))


@pytest.mark.parametrize(
    "asked",
    [
        VNNI,
        replace(VNNI, granularity=("tensor",)),
        replace(VNNI, power_of_two=True),
        replace(VNNI, activation=CodeRange("uint8", 0, 127)),
    ],
)
def test_scheme_covers(asked: Scheme) -> None:
    assert VNNI.covers(asked)


@pytest.mark.parametrize(
    "asked",
    [
        replace(VNNI, granularity=("group",)),
        replace(VNNI, activation=CodeRange("int8", -128, 127)),
        replace(VNNI, weight=None),
        replace(VNNI, weight=CodeRange("int8", -128, 127, symmetric=True)),
        replace(VNNI, accumulate="int16"),
    ],
)
def test_scheme_does_not_cover(asked: Scheme) -> None:
    assert not VNNI.covers(asked)


def test_power_of_two_hardware_needs_power_of_two_scales() -> None:
    shift_only = replace(VNNI, power_of_two=True)
    assert not shift_only.covers(VNNI)
    assert shift_only.covers(shift_only)


def test_weightless_scheme_does_not_cover_weights() -> None:
    assert not Scheme(U8).covers(VNNI)


def test_note_is_not_identity() -> None:
    assert replace(VNNI, note="slow") == VNNI


def test_ranges_at_run_time_are_something_hardware_lists() -> None:
    dense = replace(VNNI, dynamic=("tensor", "token"))
    assert dense.covers(replace(VNNI, dynamic=("token",)))
    assert dense.covers(VNNI)
    assert not VNNI.covers(dense)
