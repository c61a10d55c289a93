"""Agreement of outputs: noise in dB, identity, and the chosen class."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcomp.measure.compare import compare, sqnr_db


def outputs(*arrays):
    return [[np.asarray(a, np.float32)] for a in arrays]


def test_sqnr_is_signal_over_noise_of_all_samples():
    ours = [np.array([3.0, 4.0]), np.array([0.0, 5.0])]
    theirs = [np.array([3.5, 4.0]), np.array([0.0, 5.0])]
    assert sqnr_db(ours, theirs) == pytest.approx(10 * np.log10(50 / 0.25))


def test_the_worst_output_counts():
    ours = [[np.ones(4), np.full(4, 100.0)]]
    theirs = [[np.full(4, 1.1), np.full(4, 100.1)]]
    assert compare(ours, theirs).sqnr_db == pytest.approx(20.0)


def test_identical_outputs_have_no_noise_to_state():
    found = compare(outputs([[1, 2]]), outputs([[1, 2]]))
    assert found.identical
    assert found.sqnr_db is None
    assert (found.argmax, found.samples, found.reason) == (1.0, 1, None)


def test_argmax_is_counted_over_rows_and_samples():
    ours = outputs([[1, 2], [2, 1]], [[1, 2], [2, 1]])
    theirs = outputs([[1, 3], [2, 1]], [[2, 1], [2, 0]])
    assert compare(ours, theirs).argmax == 0.75


def test_scalars_compare():
    assert compare([[np.float32(2)]], [[np.float32(2)]]).argmax == 1.0


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (outputs([[1, 2]]), outputs([[1, 2, 3]]), "shapes"),
        (outputs([[1, 2]]), [[np.zeros((1, 2)), np.zeros(3)]], "shapes"),
        (outputs([[1, 2]]), outputs([[1, np.nan]]), "NaN"),
        (outputs([[0, 0]]), outputs([[1, 2]]), "all zero"),
    ],
)
def test_what_cannot_be_compared_has_a_reason(ours, theirs, words):
    found = compare(ours, theirs)
    assert found.sqnr_db is None
    assert not found.identical
    assert words in found.reason
