"""A seeded sample of the ONNX node tests, and the harness that judges all of them."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from acceptance.onnx_case import judge
from acceptance.onnx_cases import excluded, load_cases
from acceptance.onnx_compare import compare
from acceptance.onnx_nodes import run_cases

SAMPLE = 30


def test_a_sample_of_the_node_tests_is_right_or_refused() -> None:
    cases, _ = load_cases()
    # Definitions written out take long to compile and say little that the operators do not.
    names = [name for name in cases if "_expanded" not in name and "attention" not in name]
    results = [judge(cases[name]) for name in random.Random(5).sample(names, SAMPLE)]
    counts = Counter(result["verdict"] for result in results)
    assert not [result for result in results if result["verdict"] in ("wrong", "failed")]
    assert counts["refused"] <= 0.15 * SAMPLE
    assert all("\n" not in result["reason"] for result in results)


def test_settings_are_stored_and_data_is_not() -> None:
    cases, left_out = load_cases()
    case = cases["test_top_k"]
    assert list(case.inputs) == ["x"]
    assert [tensor.name for tensor in case.model.graph.initializer] == ["k"]
    assert list(cases["test_nonzero_example"].inputs) == ["condition"]
    assert sum(left_out.values()) + len(cases) > 1800
    assert excluded(cases["test_add"].model) == ""


def test_a_child_that_dies_or_hangs_is_a_result_and_the_others_run() -> None:
    names = ["a", "dies", "b", "hangs", "c"]
    results = run_cases(names, "fake_judge:serve", preload=(), seconds=2.0)
    found = {result["case"]: result for result in results}
    assert [found[name]["verdict"] for name in ("a", "b", "c")] == ["right"] * 3
    assert "SIGSEGV" in found["dies"]["reason"]
    assert found["hangs"]["reason"] == "took more than 2 s"


@pytest.mark.parametrize(
    ("got", "want", "same"),
    [
        (np.float32([1, np.nan]), np.float32([1, np.nan]), True),
        (np.float32([1, 2]), np.float32([1, np.inf]), False),
        (np.float32([1, np.nan]), np.float32([1, 2]), False),
        (np.float32([1, 2.001]), np.float32([1, 2]), False),
        (np.float32([1e-9, 1]), np.float32([0, 1]), True),
        (np.int64([1]), np.int32([1]), False),
        (np.int64([[1]]), np.int64([1]), False),
        (np.int64([1, 2]), np.int64([1, 3]), False),
    ],
)
def test_outputs_are_compared_in_dtype_shape_and_value(
    got: np.ndarray, want: np.ndarray, same: bool
) -> None:
    assert (compare(got, want) == "") is same
    widened = compare(got, want, of_largest=1e-3) == "" == compare(got, want, of_each=1e-3)
    assert widened is (same or got.tolist() == [1, np.float32(2.001)])
