"""Data to evaluate on is checked whole: names, shapes, types, values, labels; one line each."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcomp.errors import DataError
from tvmcomp.measure import load_dataset
from tvmcomp.model import Signature, TensorType

SIGNATURE = Signature({"x": TensorType((2, 3), "float32")}, {"y": TensorType((2, 5), "float32")})
X = np.zeros((5, 3), np.float32)
IDS = np.arange(5)


def test_every_sample_comes_once_and_the_last_batch_is_filled_up():
    data = load_dataset(
        {"x": np.arange(15, dtype=np.float32).reshape(5, 3), "labels": IDS}, SIGNATURE
    )
    calls = list(data.calls())
    assert [part for _, part in calls] == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert all(inputs["x"].shape == (2, 3) for inputs, _ in calls)
    np.testing.assert_array_equal(calls[2][0]["x"], [[12, 13, 14]] * 2)
    assert (data.samples, data.labels_name) == (5, "labels")


def test_labels_may_have_another_key_or_be_missing(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, truth=IDS.astype(np.uint8))
    data = load_dataset(tmp_path / "a.npz", SIGNATURE, "truth")
    assert data.labels.dtype == np.int64
    assert load_dataset({"x": X}, SIGNATURE).labels is None
    other = load_dataset({"x": X + 1}, SIGNATURE)
    assert other.digest != load_dataset({"x": X}, SIGNATURE).digest


@pytest.mark.parametrize(
    ("arrays", "labels", "words"),
    [
        ({"image": X, "labels": IDS}, None, "holds image, labels; the model takes x"),
        ({"x": X, "truth": IDS}, None, "class ids 'labels'"),
        ({}, None, "holds nothing"),
        ({"x": X, "labels": IDS}, "truth", "no labels 'truth'"),
        ({"x": X, "labels": IDS}, "x", "'x' is an input"),
        ({"x": X, "labels": IDS[:4]}, None, r"shape \[4\] for 5 samples"),
        ({"x": X, "labels": np.array(3)}, None, "one label per sample"),
        ({"x": X, "labels": IDS.astype(np.float32)}, None, "whole numbers"),
        ({"x": X, "labels": IDS + 1}, None, "label 5 is no class: .* 0 to 4"),
        ({"x": X[:0], "labels": IDS[:0]}, None, "no samples"),
        ({"x": X.astype(np.float64)}, None, r"\.astype\('float32'\)"),
        ({"x": np.zeros((5, 4), np.float32)}, None, r"give it as \[samples, 3\]"),
        ({"x": np.where(IDS[:, None] == 3, np.nan, X)}, None, "sample 3 .* NaN"),
    ],
)
def test_what_does_not_fit_is_refused(arrays, labels, words):
    arrays = {
        n: a.astype(np.float32) if n == "x" and "NaN" in words else a for n, a in arrays.items()
    }
    with pytest.raises(DataError, match=words) as caught:
        load_dataset(arrays, SIGNATURE, labels)
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_must_count_the_same_samples():
    two = Signature({**SIGNATURE.inputs, "k": TensorType((2, 1), "float32")}, SIGNATURE.outputs)
    with pytest.raises(DataError, match="5 and 4 samples"):
        load_dataset({"x": X, "k": X[:4, :1]}, two)
    odd = Signature({**SIGNATURE.inputs, "k": TensorType((7,), "float32")}, SIGNATURE.outputs)
    with pytest.raises(DataError, match="function of your own"):
        load_dataset({"x": X, "k": X[:, 0]}, odd)
