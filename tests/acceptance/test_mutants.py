"""A sample of the broken models of acceptance/mutants: none may end otherwise than named here."""

from __future__ import annotations

from pathlib import Path

import pytest
from acceptance.mutants.outcome import ALLOWED, Outcome, names_a_fix, names_a_place
from acceptance.mutants.run import CLASSES, try_mutants, write

# Every fifth class, of which most are refused, and two of which this seed's mutant compiles.
SAMPLE = (*CLASSES[::5], "rank of a weight", "declared output")
SEED = 100


def test_what_is_allowed() -> None:
    assert {outcome.name for outcome in ALLOWED} == {"EQUAL", "REFUSED", "LIMIT"}
    assert len(CLASSES) == len(set(CLASSES)) >= 40


def test_mutants_end_as_allowed() -> None:
    results = list(try_mutants([(kind, SEED) for kind in SAMPLE]))
    faults = [result for result in results if result.outcome not in ALLOWED]
    assert not faults
    assert sum(result.outcome is Outcome.EQUAL for result in results) >= 2
    refused = [r for r in results if r.outcome in (Outcome.REFUSED, Outcome.LIMIT)]
    assert len(refused) > len(results) / 2
    assert all(r.names_place and r.names_fix for r in refused)


def test_an_old_opset_is_judged_by_what_it_converts_to() -> None:
    (result,) = try_mutants([("opset or IR version", 21)])
    assert result.outcome is Outcome.EQUAL, result.message


def test_every_class_makes_mutants(tmp_path: Path) -> None:
    for kind in CLASSES:
        folder = tmp_path / kind.replace(" ", "_")
        (folder / "home").mkdir(parents=True)
        assert write(kind, SEED, folder / "home").exists()


def test_mutants_repeat_and_differ(tmp_path: Path) -> None:
    for kind in ("flipped bits", "huge dimension", "external data of the wrong extent"):
        files = [write(kind, seed, tmp_path).read_bytes() for seed in (1, 1, 2, 3, 4)]
        assert files[0] == files[1]
        assert len(set(files)) > 2


@pytest.mark.parametrize(
    ("message", "place", "fix"),
    [
        ("Conv node the_conv has no weight; export the model again", True, True),
        ("a tensor is too large", False, False),
        ("input a has no shape; a shape is wanted", True, False),
        ("the_convolution is wrong: use another", False, True),
    ],
)
def test_what_an_error_names(message: str, place: bool, fix: bool) -> None:
    assert names_a_place(message, ["the_conv", "a"]) is place
    assert names_a_fix(message) is fix
