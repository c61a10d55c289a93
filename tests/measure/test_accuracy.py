"""Accuracy counts every sample once, whatever the batch, and refuses what it cannot judge."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcomp.errors import DataError
from tvmcomp.measure import accuracy

LABELS = np.array([0, 1, 2, 0, 1, 2, 0])
DATA = np.eye(3, dtype=np.float32)[LABELS]  # a predictor that returns its input is always right


def wrong_on(rows):
    data = DATA.copy()
    data[rows] = np.roll(data[rows], 1, axis=-1)
    return data


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 10])
def test_value_does_not_depend_on_the_batch(batch):
    shapes = []

    def predict(x):
        shapes.append(x.shape)
        return x

    found = accuracy(predict, wrong_on([2, 6]), LABELS, batch=batch)
    assert found.value == 5 / 7
    assert found.samples == 7
    assert found.metric == "top1"
    assert set(shapes) == {(batch, 3)}
    assert found.standard_error == pytest.approx(np.sqrt(5 / 7 * 2 / 7 / 7))


def test_named_inputs_first_outputs_and_class_ids():
    data = {"x": DATA, "unused": np.zeros((7, 2))}
    assert accuracy(lambda d: {"y": d["x"], "z": 0}, data, LABELS).value == 1.0
    assert accuracy(lambda d: (d["x"], 0), data, LABELS, batch=2).value == 1.0
    assert accuracy(lambda d: d["x"].argmax(-1), data, LABELS, batch=2).value == 1.0


def test_labels_may_have_more_axes():
    labels = np.stack([LABELS, LABELS[::-1]], axis=1)
    data = np.eye(3)[labels]
    found = accuracy(lambda x: x, data, labels, batch=2)
    assert (found.value, found.samples) == (1.0, 7)


def test_digest_names_data_and_labels():
    base = accuracy(lambda x: x, DATA, LABELS).data_digest
    assert base == accuracy(lambda x: x * 2, DATA, LABELS).data_digest
    assert base != accuracy(lambda x: x, wrong_on([0]), LABELS).data_digest
    assert base != accuracy(lambda x: x, DATA, LABELS[::-1]).data_digest


@pytest.mark.parametrize(
    ("predict", "data", "labels", "words"),
    [
        (lambda x: x, DATA[:0], LABELS[:0], "no samples"),
        (lambda x: x, {}, LABELS, "no samples"),
        (lambda x: x, DATA[:5], LABELS, "axis 0"),
        (lambda x: x * np.nan, DATA, LABELS, "NaN"),
        (lambda x: x[0], DATA, LABELS, "axis 0 must count samples"),
        (lambda x: x[..., None], DATA, LABELS, "neither class ids nor scores"),
        (lambda x: x.sum(-1), DATA, LABELS, "neither class ids nor scores"),
        (lambda x: x, np.eye(3)[np.stack([LABELS] * 2, 1)], np.stack([LABELS] * 3, 1), "labels"),
    ],
)
def test_what_cannot_be_judged_is_refused(predict, data, labels, words):
    with pytest.raises(DataError, match=words):
        accuracy(predict, data, labels)


def test_batch_must_be_positive():
    with pytest.raises(DataError, match="batch"):
        accuracy(lambda x: x, DATA, LABELS, batch=0)
