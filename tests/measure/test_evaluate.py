"""Evaluation: each sample counts once, differences are paired, a reference that fails says so."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from tvmcomp.errors import DataError
from tvmcomp.measure import EntryPoint, Reference, evaluate, load_dataset, load_entry_point
from tvmcomp.measure.entry_point import is_entry_point
from tvmcomp.measure.process import WorkerFailed
from tvmcomp.model import Signature, TensorType

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 8, 101)
SCORES = np.eye(8, dtype=np.float32)[LABELS] * 3 + RNG.normal(0, 0.1, (101, 8)).astype(np.float32)


def signature(*shape):
    kind = {"x": TensorType(shape, "float32")}
    return Signature(kind, {"y": kind["x"]})


def echo(inputs):
    if "x" not in inputs:
        raise DataError(f"no input {next(iter(inputs))!r}; give x")
    return {"y": inputs["x"]}


def wrong_below(limit):
    """Answers wrongly where the first sample's mark, x[0, 0] of the data's order, is below `limit`."""

    def run(inputs):
        y = inputs["x"].copy()
        y[:, :] = np.where(y[:, :1] > limit, y, np.roll(y, 1, -1))
        return {"y": y}

    return run


@pytest.mark.parametrize("batch", [1, 4, 200])
def test_accuracy_agreement_and_paired_difference(batch):
    data = load_dataset({"x": SCORES, "labels": LABELS}, signature(batch, 8))
    failing = Reference("torch", "as given", reason="torch is not installed")
    found = evaluate(wrong_below(0.0), [Reference("float", "float32", echo), failing], data)
    wrong = int((SCORES[:, 0] <= 0).sum())
    assert 0 < wrong < 101
    assert found.metrics["top1"].value == pytest.approx(1 - wrong / 101)
    assert list(found.metrics) == ["top1", "top5"]
    first, second = found.references
    assert first.metrics["top1"].value == 1.0
    assert first.difference["top1"].value == pytest.approx(-wrong / 101)
    assert first.difference["top1"].low < -wrong / 101 < first.difference["top1"].high < 0
    assert first.agreement == pytest.approx(1 - wrong / 101)
    assert found.drop == pytest.approx(100 * wrong / 101)
    noise = np.square(np.roll(SCORES, 1, -1) - SCORES)[SCORES[:, 0] <= 0].sum(dtype=np.float64)
    signal = np.square(SCORES.astype(np.float64)).sum()
    assert first.outputs["y"]["sqnr_db"] == pytest.approx(10 * np.log10(signal / noise), abs=1e-4)
    assert (second.reason, second.agreement) == ("torch is not installed", None)
    assert json.loads(json.dumps(found.to_dict()))["schema"] == 1


def test_five_classes_have_no_top5_and_other_forms_of_scores():
    ids = np.array([0, 1, 2])
    five = load_dataset({"x": np.eye(5, dtype=np.float32)[ids], "labels": ids}, signature(1, 5))
    assert list(evaluate(echo, [], five).metrics) == ["top1"]
    pixels = RNG.integers(0, 6, (3, 4, 4))
    planes = np.moveaxis(np.eye(6, dtype=np.float32)[pixels], -1, 1)
    planes[0, :, 0, 0] = np.nan
    image = load_dataset({"x": np.nan_to_num(planes), "labels": pixels}, signature(1, 6, 4, 4))
    assert evaluate(echo, [], image).metrics["top1"].value == pytest.approx(
        1 - (pixels[0, 0, 0] != 0) / 48
    )

    def nan(inputs):
        return {"y": np.full_like(inputs["x"], np.nan)}

    broken = evaluate(nan, [Reference("float", "float32", echo)], five)
    assert broken.metrics["top1"].value == 0.0  # NaN is never right
    assert "NaN" in broken.references[0].outputs["y"]["reason"]


def test_without_labels_there_is_agreement_and_sqnr_and_it_says_so():
    data = load_dataset({"x": SCORES}, signature(1, 8))
    found = evaluate(echo, [Reference("float", "float32", echo)], data)
    assert (found.metrics, found.drop, found.gate) == ({}, None, None)
    assert found.note == "no labels: agreement and SQNR only, no accuracy"
    assert found.references[0].outputs["y"]["identical"]
    assert found.references[0].agreement == 1.0


@pytest.mark.parametrize(
    ("labels", "shape", "words"),
    [
        (np.full(101, 8), (1, 8), "label 8 is no class"),
        (np.full(101, -1), (1, 8), "label -1 is no class"),
        (np.zeros((101, 2), int), (1, 8), "neither class ids nor scores"),
    ],
)
def test_labels_that_fit_no_output(labels, shape, words):
    """Before any work: a network may take minutes to compile."""
    with pytest.raises(DataError, match=words) as caught:
        load_dataset({"x": SCORES, "labels": labels}, signature(*shape))
    assert str(caught.value).startswith("the arrays given: ")


def test_a_reference_that_dies_half_way_is_an_entry_with_its_reason():
    calls = []

    def dies(inputs):
        calls.append(1)
        if len(calls) > 3:
            raise WorkerFailed("ended by SIGKILL")
        return echo(inputs)

    data = load_dataset({"x": SCORES, "labels": LABELS}, signature(1, 8))
    (found,) = evaluate(echo, [Reference("onnxruntime", "as given", dies)], data).references
    assert (found.reason, found.metrics, found.agreement) == ("ended by SIGKILL", {}, None)
    assert len(calls) == 4


def test_a_function_of_the_users_own():
    def function(predict):
        right = [
            predict({"x": x[None]})["y"].argmax() == label
            for x, label in zip(SCORES[:40], LABELS, strict=False)
        ]
        return {"accuracy": np.array(right), "n": 40}

    data = EntryPoint("mine:function", function)
    found = evaluate(wrong_below(0.0), [Reference("float", "float32", echo)], data)
    wrong = int((SCORES[:40, 0] <= 0).sum())
    assert found.metrics["accuracy"].value == pytest.approx(1 - wrong / 40)
    assert found.metrics["accuracy"].low < found.metrics["accuracy"].value
    assert found.metrics["n"].low is None
    (reference,) = found.references
    assert reference.difference["accuracy"].value == pytest.approx(-wrong / 40)
    assert reference.agreement == pytest.approx(1 - wrong / 40)
    assert found.drop == pytest.approx(wrong / 40)
    plain = evaluate(echo, [], EntryPoint("f", lambda predict: predict({"x": 0.5})["y"]))
    assert plain.metrics["score"].value == 0.5


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda p: None, "returned None as 'score'"),
        (lambda p: "good", "returned 'good'"),
        (lambda p: {}, "empty dict"),
        (lambda p: float("nan"), "NaN"),
        (lambda p: {"a": np.zeros((2, 2))}, "one number per sample"),
        (lambda p: [[1], [2, 3]], "returned"),
        (lambda p: p(np.zeros(3)), "pass a dict"),
        (lambda p: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda p: sys.exit(3), "raised SystemExit: 3"),
        (lambda p: p({"z": np.zeros(3)}), "predict: no input 'z'; give x"),
    ],
)
def test_functions_that_fail_or_return_nonsense(function, words):
    def asking(predict):
        predict({"x": SCORES})
        return function(predict)

    with pytest.raises(DataError, match=words) as caught:
        evaluate(echo, [], EntryPoint("mine:f", asking))
    assert str(caught.value).startswith("mine:f: ")
    assert "; " in str(caught.value)


def test_a_function_that_asks_nothing_says_nothing():
    with pytest.raises(DataError, match=r"mine:f: never called predict, .*; score what predict"):
        evaluate(echo, [], EntryPoint("mine:f", lambda predict: 1.0))


def test_entry_points_are_found_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_eval.py").write_text(
        "number = 3\ndef score(predict):\n    return predict({'x': 1.0})['y']\n"
    )
    (tmp_path / "broken_eval.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "leaving_eval.py").write_text("raise SystemExit(3)\n")
    assert load_entry_point("own_eval:score").scores(echo)["score"] == 1.0
    for text, words in [
        ("own_eval:other", "has no 'other'"),
        ("own_eval:number", "is a int"),
        ("broken_eval:f", "ModuleNotFoundError"),
        ("leaving_eval:f", "SystemExit"),
        ("no_such_module:f", "cannot be imported"),
    ]:
        with pytest.raises(DataError, match=words):
            load_entry_point(text)
    assert is_entry_point("pkg.mod:fn")
    assert not any(map(is_entry_point, ["data.npz", "a/b.npz", "pkg.mod", "c:\\x", "a b:c"]))
