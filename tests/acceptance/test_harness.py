"""The harness judges, survives and reports: a row that fails, raises, dies or hangs is never a pass."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from acceptance.apart import run_apart
from acceptance.bench_json import faults
from acceptance.context import Context
from acceptance.driver import Result, drive
from acceptance.host import describe
from acceptance.nets import FULL, TINY, Files, export
from acceptance.photos import CALIBRATION_SEED, EVALUATION_SEED, photos
from acceptance.report import write_report
from acceptance.row import Check, NotRun, Row, Verdict, at_least, at_most, figure, holds, tried
from acceptance.rows import ROWS
from acceptance.sqnr import sqnr_db
from acceptance.worker import make_context, run_rows

from acceptance import __main__ as command
from acceptance import driver


def _row(*checks: Check) -> Row:
    return Row("row", "claim", lambda context: checks)


def _events(*rows: Row) -> list[dict]:
    out = io.StringIO()
    run_rows(rows, Context((), Path()), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("check", "ok"),
    [
        (at_most("a", 1e-4, 1e-4), True),
        (at_most("a", 1.01e-4, 1e-4), False),
        (at_most("a", math.nan, 1e-4), False),
        (at_least("a", 2.5, 2.5), True),
        (at_least("a", 2.49, 2.5), False),
        (at_least("a", math.nan, 2.5), False),
        (holds("a", ok=False), False),
    ],
)
def test_a_check_is_held_against_its_limit(check: Check, ok: bool) -> None:
    assert check.ok is ok


@pytest.mark.parametrize(
    ("checks", "not_run", "want"),
    [
        ([holds("a", ok=True), figure("b", 3)], None, Verdict.PASS),
        ([holds("a", ok=True), holds("b", ok=False)], None, Verdict.FAIL),
        ([figure("a", 3)], None, Verdict.FAIL),
        ([], None, Verdict.FAIL),
        ([figure("a", 3)], "no such CPU", Verdict.NOT_RUN),
        ([holds("a", ok=False)], "no such CPU", Verdict.FAIL),
    ],
)
def test_the_verdict(checks: list[Check], not_run: str | None, want: Verdict) -> None:
    assert Result(_row(), checks, not_run).verdict is want


def test_a_part_that_raises_is_a_failed_check_and_others_run() -> None:
    def broken() -> Iterator[Check]:
        yield holds("first", ok=True)
        raise ValueError("no")

    row = Row("row", "claim", lambda context: [*tried("one", broken), holds("two", ok=True)])
    checks = [event["check"] for event in _events(row) if event["event"] == "check"]
    assert [(check["what"], check["ok"]) for check in checks] == [
        ("first", True),
        ("one", False),
        ("two", True),
    ]
    assert checks[1]["value"] == "ValueError: no"
    assert "in broken" in checks[1]["detail"]


def test_a_row_that_raises_has_failed_and_the_next_one_runs() -> None:
    def broken(context: Context) -> Iterator[Check]:
        raise ImportError("a room is not there")
        yield

    def skips(context: Context) -> Iterator[Check]:
        raise NotRun("no such CPU")
        yield

    events = _events(Row("a", "", broken), Row("b", "", skips), _row(holds("c", ok=True)))
    assert [event["check"]["ok"] for event in events if event["event"] == "check"] == [False, True]
    assert [event.get("not_run") for event in events if event["event"] == "end"] == [
        None,
        "no such CPU",
        None,
    ]


WORKER = """
import json, os, signal, sys, time
rows = json.loads(sys.argv[1])["rows"]
for row in rows:
    print(json.dumps({"event": "start", "row": row}), flush=True)
    if row == "dies":
        print(json.dumps({"event": "check", "row": row, "check": {"what": "w", "value": 1}}), flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if row == "hangs":
        time.sleep(60)
    check = {"what": "w", "value": 1, "limit": "", "ok": True, "detail": ""}
    print(json.dumps({"event": "check", "row": row, "check": check}), flush=True)
    print(json.dumps({"event": "end", "row": row, "wall_s": 1.0, "stages": {"s": 1.0}}), flush=True)
"""


def test_rows_that_die_or_hang_have_failed_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    popen = driver.subprocess.Popen

    def start(command: list[str], **options: object) -> object:
        started.append(json.loads(command[-1])["rows"])
        return popen([sys.executable, "-c", WORKER, command[-1]], **options)

    monkeypatch.setattr(driver.subprocess, "Popen", start)
    rows = [Row(name, "", lambda context: ()) for name in ("good", "dies", "hangs", "last")]
    heard: list[str] = []
    results = drive(
        rows,
        tmp_path,
        tiny=True,
        nets=(),
        tell=lambda result, check: heard.append(result.row.name) if check is None else None,
        row_seconds=3,
    )
    assert [result.verdict for result in results] == [
        Verdict.PASS,
        Verdict.FAIL,
        Verdict.FAIL,
        Verdict.PASS,
    ]
    assert results[1].checks[0].value == 1
    assert "SIGSEGV" in results[1].checks[-1].value
    assert "took more than 3 s" in results[2].checks[-1].value
    assert heard == ["good", "dies", "hangs", "last"]
    assert started == [["good", "dies", "hangs", "last"], ["hangs", "last"], ["last"]]


def test_the_command_exits_7_when_a_row_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def drives(rows, folder, *, tiny, nets, tell):  # type: ignore[no-untyped-def]
        results = [
            Result(row, [at_most("error", 0.5, fail)])
            for row, fail in zip(rows, (1, 0.1), strict=False)
        ]
        for result in results:
            tell(result, result.checks[0])
            tell(result, None)
        return results

    monkeypatch.setattr(command, "drive", drives)
    assert command.main(["--only", "float", "--out", str(tmp_path)]) == 0
    assert command.main(["--only", "float,sqnr", "--out", str(tmp_path)]) == command.GATE_MISSED
    assert "[sqnr]  FAIL error: 0.5  (<= 0.1)" in capsys.readouterr().out
    data = json.loads((tmp_path / "acceptance.json").read_text())
    assert [(row["row"], row["verdict"]) for row in data["rows"]] == [
        ("float", "pass"),
        ("sqnr", "fail"),
    ]
    with pytest.raises(SystemExit):
        command.main(["--only", "flaot"])


def test_the_report_says_where_it_comes_from(tmp_path: Path) -> None:
    host = describe()
    row = Row("row", "a | b", lambda context: ())
    write_report(tmp_path, host, [Result(row, [at_most("x", 2.0, 1.0, "two\nlines")])], 1.0)
    text = (tmp_path / "acceptance.md").read_text()
    assert host["cpu"] in text
    assert "load average" in text
    assert f"torch {host['versions']['torch']}" in text
    assert "| x | 2 | <= 1 | **fail** | two lines |" in text
    assert "a \\| b" in text


def test_every_row_has_its_own_name_and_a_claim() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) >= 12
    assert all(row.claim for row in ROWS)


def test_a_tiny_run_has_the_same_networks_and_fewer_trials(tmp_path: Path) -> None:
    assert [net.name for net in TINY] == [net.name for net in FULL]
    tiny, full = make_context(tmp_path, tiny=True), make_context(tmp_path, tiny=False)
    assert (tiny.scaled(500), full.scaled(500)) == (50, 500)
    assert [net.name for net in make_context(tmp_path, tiny=True, only=["resnet50"]).nets] == [
        "resnet50"
    ]


def test_what_failed_once_is_not_tried_again(tmp_path: Path) -> None:
    context, calls = Context((), tmp_path), []

    def fails() -> None:
        calls.append(1)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            context._once(("key",), fails)
    assert len(calls) == 1


def test_photographs_differ_between_calibration_and_evaluation() -> None:
    ours, again = photos(4, 32, CALIBRATION_SEED), photos(4, 32, CALIBRATION_SEED)
    other = photos(4, 32, EVALUATION_SEED)
    assert ours.shape == (4, 3, 32, 32)
    assert ours.dtype == np.float32
    assert np.array_equal(ours, again)
    assert min(np.abs(a - b).max() for a in ours for b in other) > 0.5
    assert 0.3 < ours.std() < 3  # a picture, normalised


def test_the_files_compute_what_the_network_computes(tmp_path: Path) -> None:
    import onnxruntime
    import torch

    net = TINY[0]
    files = export(net, tmp_path)
    x = net.inputs(1, EVALUATION_SEED)["x"]
    with torch.inference_mode():
        want = net.build()(torch.from_numpy(x)).numpy()
        got = torch.export.load(files.torch).module()(torch.from_numpy(x)).numpy()
    (onnx,) = onnxruntime.InferenceSession(files.onnx).run(None, {"x": x})
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(onnx, want, rtol=1e-3, atol=1e-4)
    before = files.onnx.stat().st_mtime_ns
    assert export(net, tmp_path) == Files(files.torch, files.onnx)
    assert files.onnx.stat().st_mtime_ns == before


def test_sqnr() -> None:
    want = np.array([3.0, 4.0], np.float32)
    assert sqnr_db(want, want) == math.inf
    assert sqnr_db(want, want + np.array([0.5, 0], np.float32)) == pytest.approx(20)


def _bench() -> dict:
    entry = {"median_ms": 2.0, "p10_ms": 1.0, "p90_ms": 3.0, "repeats": 9, "reason": None}
    peers = [
        {**entry, "name": name, "precision": precision, "ratio": 1.0}
        for name, precision in (
            ("onnxruntime", "float32"),
            ("onnxruntime", "int8"),
            ("openvino", "float32"),
            ("openvino", "int8"),
            ("torch", "float32"),
        )
    ]
    return {
        "schema": 1,
        "subject": {**entry, "name": "tvmcomp", "precision": "int8"},
        "peers": peers,
        **{key: {} for key in ("device", "versions", "input")},
        "threads": 1,
    }


def test_the_json_of_bench_is_checked() -> None:
    assert faults(_bench()) == []
    wrong = _bench()
    wrong["peers"][0]["ratio"] = 1.5
    wrong["peers"][1]["p10_ms"] = 2.5
    wrong["peers"][2]["reason"] = "not installed"
    wrong["threads"] = 2
    del wrong["peers"][3]
    assert len(faults(wrong)) == 5
    assert faults({}) != []


def test_a_function_runs_in_a_process_of_its_own() -> None:
    assert run_apart("os:getpid", {}) != os.getpid()
    with pytest.raises(RuntimeError, match="exit 1"):
        run_apart("json:loads", {"s": "{"})
    # faulthandler's own crash, as native code would have it.
    with pytest.raises(RuntimeError, match="ended by SIGSEGV"):
        run_apart("faulthandler:_sigsegv", {})
