"""The quickstart from end to end, with fewer epochs and calls, and its gates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cli.conftest import Done
from tvmcomp.artifact import read_artifact
from tvmcomp.cli import quickstart_digits
from tvmcomp.cli.quickstart_digits import Quickstart, Row, quickstart
from tvmcomp.measure import Turns

Call = Callable[..., Done]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    folder = tmp_path_factory.mktemp("quickstart")
    turns = Turns(rounds=2, repeats=10, min_seconds=0.1)
    return quickstart(folder, epochs=3, turns=turns)


def test_one_file_remains_and_verifies(call: Call, made: Quickstart) -> None:
    assert [path.name for path in made.artifact.parent.iterdir()] == ["digits.tvmcomp"]
    assert call("verify", made.artifact).code == 0
    payload = read_artifact(made.artifact)
    assert payload.manifest.recipe is not None
    assert payload.manifest.recipe["name"] == "int8"
    assert payload.measurements["accuracy"]["samples"] == 540  # type: ignore[index]


def test_int8_is_as_good_and_smaller(made: Quickstart) -> None:
    assert made.missed == ()
    assert made.float32.accuracy > 0.9
    assert made.float32.accuracy - made.int8.accuracy <= 0.004
    assert made.int8.params_bytes <= 0.30 * made.float32.params_bytes
    assert made.int8.file_bytes == made.artifact.stat().st_size
    assert made.float32.file_bytes is not None
    assert made.int8.file_bytes < made.float32.file_bytes


def test_float_is_pytorchs_own_answer(made: Quickstart) -> None:
    (torch,) = made.peers
    assert (torch.name, torch.precision) == ("torch", "float32")
    assert made.float32.accuracy == torch.accuracy
    against = made.bench["subject"]["float32_agreement"]
    assert against["argmax"] == 1.0
    assert against["sqnr_db"] > 20


def test_every_row_was_timed(made: Quickstart) -> None:
    for row in (*made.peers, made.float32, made.int8):
        assert row.reason is None
        assert row.median_ms is not None
        assert row.p10_ms is not None
        assert row.p90_ms is not None
        assert 0 < row.p10_ms <= row.median_ms <= row.p90_ms


def test_json_and_table(call: Call, made: Quickstart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart_digits, "quickstart", lambda *_, **__: made)
    data = call("quickstart", "--json").json
    assert data["int8"]["accuracy"] == made.int8.accuracy
    assert data["next"][0] == f"tvmcomp inspect {made.artifact} --kernels"
    done = call("quickstart")
    assert (done.code, done.err) == (0, "")
    rows = done.out.splitlines()[1:4]
    assert [row.split()[:2] for row in rows] == [
        ["torch", "float32"],
        ["tvmcomp", "float32"],
        ["tvmcomp", "int8"],
    ]
    assert "of 540" in rows[2]
    assert f"wrote {made.artifact}" in done.out
    assert json.dumps(made.to_dict(), allow_nan=False)


def test_a_missed_gate_is_exit_7(
    call: Call, made: Quickstart, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = replace(made, missed=("int8 loses 1.00% of accuracy, more than 0.40%",))
    monkeypatch.setattr(quickstart_digits, "quickstart", lambda *_, **__: worse)
    assert "int8 loses" in call("quickstart").failed(7)
    assert call("quickstart", "--json").json["missed"] == list(worse.missed)


def row(accuracy: float, params_bytes: int) -> Row:
    return Row("tvmcomp", "any", accuracy, 540, 1.0, 1.0, 1.0, params_bytes, None)


@pytest.mark.parametrize(
    ("int8", "words"),
    [
        (row(0.990, 3000), []),
        (row(0.985, 3000), ["accuracy"]),
        (row(0.999, 3001), ["parameters"]),
        (row(0.900, 9000), ["accuracy", "parameters"]),
    ],
)
def test_gates(int8: Row, words: list[str]) -> None:
    missed = quickstart_digits.missed_gates(row(0.990, 10_000), int8)
    assert len(missed) == len(words)
    assert all(word in line for word, line in zip(words, missed, strict=True))


def test_folder_is_checked_before_training(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart_digits, "read_digits", lambda _: pytest.fail("work was begun"))
    assert "does not exist" in call("quickstart", tmp_path / "none").failed(2)
