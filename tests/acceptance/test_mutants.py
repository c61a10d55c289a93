"""A sample of the broken models of acceptance/mutants: none may end otherwise than named here."""

from __future__ import annotations

from pathlib import Path

import pytest
from acceptance.mutants.outcome import ALLOWED, Outcome, names_a_fix, names_a_place
from acceptance.mutants.run import CLASSES, try_mutants, write

SLOW = ("very long or very wide graph", "endless range")


def test_what_is_allowed() -> None:
    assert {outcome.name for outcome in ALLOWED} == {"EQUAL", "REFUSED", "LIMIT"}
    assert len(CLASSES) == len(set(CLASSES)) >= 40


def test_a_mutant_of_every_class_ends_as_allowed() -> None:
    mutants = [(kind, 100) for kind in CLASSES if kind not in SLOW]
    mutants += [(kind, 101) for kind in CLASSES[::3] if kind not in SLOW]
    results = list(try_mutants(mutants))
    faults = [result for result in results if result.outcome not in ALLOWED]
    assert not faults
    refused = [r for r in results if r.outcome in (Outcome.REFUSED, Outcome.LIMIT)]
    assert len(refused) > len(results) / 2
    helpful = [r for r in refused if r.names_place and r.names_fix]
    assert len(helpful) >= 0.95 * len(refused)


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
