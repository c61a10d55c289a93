"""Contenders take turns in processes of their own, and no peer's failure is more than an entry."""

from __future__ import annotations

import json
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tvmcomp.errors import DataError, TvmcompError, UsageError
from tvmcomp.measure import Contender, Limits, Step, Turns, bench
from tvmcomp.measure.process import Worker

ROOM = "bench_contenders"
INPUTS = [{"x": np.arange(6, dtype=np.float32).reshape(2, 3)}]
QUICK = Turns(rounds=2, repeats=4, min_seconds=0, warmup=1, wake=1, settle=0)


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    # Workers look where this process looks.
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def fake(name="ours", precision="int8", prepare=(), **options):
    return Contender(name, precision, f"{ROOM}:fake", {"label": name, **options}, prepare)


def run(subject, *peers, inputs=INPUTS, turns=QUICK, **options):
    return bench(subject, peers, inputs, description="six numbers", turns=turns, **options)


def check_schema(report):
    """The JSON of `bench`, schema 1, key by key."""
    text = json.dumps(report, allow_nan=False)
    assert json.loads(text) == report
    top = {
        "schema": int,
        "subject": dict,
        "peers": list,
        "float32_reference": (str, type(None)),
        "threads": int,
        "pinned_cpus": (list, type(None)),
        "rounds": int,
        "warmup": int,
        "order": list,
        "device": dict,
        "clock": dict,
        "versions": dict,
        "load_average": (list, type(None)),
        "input": dict,
    }
    assert set(report) == set(top)
    assert all(isinstance(report[key], kind) for key, kind in top.items())
    assert report["schema"] == 1
    assert set(report["input"]) == {"digest", "description", "tensors"}
    check_entry(report["subject"], set())
    for peer in report["peers"]:
        check_entry(peer, {"ratio", "agreement"})
        if peer["reason"] is None:
            expected = peer["median_ms"] / report["subject"]["median_ms"]
            assert peer["ratio"] == pytest.approx(expected)


def check_entry(entry, more):
    times = ["median_ms", "p10_ms", "p90_ms"]
    keys = {"name", "precision", "repeats", "round_median_ms", "reason", "float32_agreement"}
    assert keys | {*times, "versions", "settings"} | more <= set(entry)
    if entry["reason"] is None:
        assert 0 < entry["p10_ms"] <= entry["median_ms"] <= entry["p90_ms"]
        assert entry["repeats"] > 0
        return
    assert "\n" not in entry["reason"]
    assert all(entry[time] is None for time in times)
    assert entry["repeats"] == 0
    assert entry.get("ratio") is None
    assert entry.get("agreement") is None


def test_the_report_has_the_schema_and_the_ratio_says_who_is_faster():
    report = run(fake(ms=2), fake("slow", ms=8), fake("fast", precision="float32", ms=0.5))
    check_schema(report)
    slow, fast = report["peers"]
    assert (slow["name"], slow["precision"], fast["precision"]) == ("slow", "int8", "float32")
    assert slow["ratio"] > 1.5  # 8 ms against our 2: we are faster, so above 1
    assert fast["ratio"] < 0.8
    assert report["subject"]["settings"] == {"threads": 1}
    assert report["subject"]["versions"] == {"fake": "1"}
    assert report["input"]["description"] == "six numbers"
    assert report["float32_reference"] == "fast:float32"


def test_contenders_take_turns_in_processes_of_their_own(tmp_path):
    log = tmp_path / "log"
    options = {"log": str(log)}
    turns = Turns(rounds=3, repeats=9, min_seconds=0, warmup=2, wake=1, settle=0)
    report = run(fake("A", **options), fake("B", **options), fake("C", **options), turns=turns)
    assert report["order"] == ["A:int8", "B:int8", "C:int8"] * 3
    calls = [line.split() for line in log.read_text().splitlines()]
    labels = [call[0] for call in calls]
    starts = [labels[0], *(b for a, b in pairwise(labels) if a != b)]
    assert starts == ["A", "B", "C"] * 4  # outputs and warm-up, then three rounds
    # 1 for the outputs, 2 warm-up, and a wake-up call with 3 timed ones in each round.
    assert [labels.count(label) for label in "ABC"] == [1 + 2 + 3 * (1 + 3)] * 3
    pids = {label: {call[1] for call in calls if call[0] == label} for label in "ABC"}
    assert all(len(own) == 1 for own in pids.values())
    assert len(set.union(*pids.values(), {str(os.getpid())})) == 4
    assert {call[4] for call in calls} == {"15.0000"}  # all on the same input
    assert [e["repeats"] for e in [report["subject"], *report["peers"]]] == [9, 9, 9]


def test_warmup_and_wake_calls_are_not_counted():
    turns = Turns(rounds=2, repeats=4, min_seconds=0, warmup=3, wake=1, settle=0)
    # 50 ms for the first five calls: outputs, three of warm-up, the first wake-up.
    report = run(fake(slow_first=5, ms=1), turns=turns)
    assert report["subject"]["repeats"] == 4
    assert report["subject"]["p90_ms"] < 20


def test_blocks_last_for_their_part_of_the_time():
    turns = Turns(rounds=2, repeats=2, min_seconds=0.1, warmup=0, wake=0, settle=0)
    report = run(fake(ms=1), turns=turns)
    assert 10 < report["subject"]["repeats"] < 110
    assert len(report["subject"]["round_median_ms"]) == 2


def test_threads_and_pinning_reach_every_process(tmp_path):
    log = tmp_path / "log"
    usable = os.sched_getaffinity(0)
    cpu = max(usable)
    options = {"log": str(log)}
    report = run(fake("A", **options), fake("B", **options), pin=[cpu])
    assert report["pinned_cpus"] == [cpu]
    assert {tuple(line.split()[2:4]) for line in log.read_text().splitlines()} == {("1", str(cpu))}
    assert os.sched_getaffinity(0) == usable
    if len(usable) < 2:
        return
    log.unlink()
    report = run(fake("A", **options), threads=2, pin=sorted(usable)[:2])
    assert report["subject"]["settings"] == {"threads": 2}
    assert {line.split()[2] for line in log.read_text().splitlines()} == {"2"}


def test_outputs_are_compared_with_ours_and_with_float32():
    more = [*INPUTS, {"x": -INPUTS[0]["x"]}]
    peers = fake("same"), fake("off", offset=0.5), fake("float", precision="float32", offset=0.1)
    report = run(fake(), *peers, inputs=more)
    same, off, reference = report["peers"]
    assert same["agreement"]["identical"]
    assert same["agreement"]["samples"] == 2
    assert off["agreement"]["sqnr_db"] == pytest.approx(10 * np.log10(110 / (12 * 0.25)))
    assert off["agreement"]["argmax"] == 1.0
    assert report["float32_reference"] == "float:float32"
    expected = 10 * np.log10(np.sum((np.arange(6) + 0.1) ** 2 + (0.1 - np.arange(6)) ** 2) / 0.12)
    assert report["subject"]["float32_agreement"]["sqnr_db"] == pytest.approx(expected, abs=0.01)
    assert reference["float32_agreement"] is None


def test_of_two_ways_to_one_precision_the_faster_is_the_entry():
    slow = fake("openvino", ms=6)
    fast = fake("openvino", ms=1)
    broken = Contender("openvino", "int8", f"{ROOM}:refusing")
    (entry,) = run(fake(), slow, broken, fast)["peers"]
    assert entry["median_ms"] < 4
    assert entry["also"][0]["median_ms"] > 4
    assert "no 1 threads" in entry["also"][1]["reason"]


def broken(kind, **options):
    return Contender(kind, "float32", f"{ROOM}:failing", {"how": kind, **options})


def test_a_peer_that_fails_is_an_entry_with_its_reason():
    peers = [
        Contender("refusing", "int8", f"{ROOM}:refusing"),
        Contender("missing", "int8", f"{ROOM}:missing"),
        Contender("no module", "int8", "a_module_nobody_has:open"),
        Contender("no factory", "int8", f"{ROOM}:nothing"),
        Contender("no colon", "int8", "nothing"),
        broken("segfault", good=0),
        broken("exit", good=1),
        broken("raise", good=4),
        Contender("printing", "int8", f"{ROOM}:printing"),
    ]
    report = run(fake(), *peers)
    check_schema(report)
    reasons = {entry["name"]: entry["reason"] for entry in report["peers"]}
    assert reasons == {
        "refusing": "ValueError: no 1 threads",
        "missing": "a_library_nobody_has is not installed; pip install it, or tvmcomp[peers]",
        "no module": "a_module_nobody_has is not installed; pip install it, or tvmcomp[peers]",
        "no factory": f"AttributeError: module '{ROOM}' has no attribute 'nothing'",
        "no colon": "'nothing' is not a factory; write it as 'module:function'",
        "segfault": "its process was ended by SIGSEGV",
        "exit": "its process ended with exit 3: the last words",
        "raise": "RuntimeError: out of luck",
        "printing": None,
    }
    assert report["subject"]["repeats"] == 4


def test_a_peer_that_hangs_is_ended_with_all_it_started(tmp_path):
    note = tmp_path / "note"
    begin = time.monotonic()
    report = run(
        fake(),
        broken(
            "hang", good=5, note=str(note)
        ),  # outputs, warm-up, wake-up, two timed, then no more
        fake("after", ms=1),
        limits=Limits(turn=1.0),
    )
    assert time.monotonic() - begin < 20
    check_schema(report)
    hung, after = report["peers"]
    assert hung["reason"] == "did not finish 'block' within 1 s and was ended"
    assert hung["round_median_ms"] == []  # its first round was timed; it has no figure all the same
    assert report["order"].count("hang:float32") == 2
    assert after["repeats"] == 4
    for pid in note.read_text().split():
        assert not running(int(pid))


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_no_process_is_left(tmp_path):
    log = tmp_path / "log"
    run(fake(log=str(log)), fake("B", log=str(log)))
    pids = {int(line.split()[1]) for line in log.read_text().splitlines()}
    assert len(pids) == 2
    assert not any(running(pid) for pid in pids)


def test_preparation_is_done_once_and_its_failure_is_a_reason(tmp_path):
    log, bad = tmp_path / "log", tmp_path / "bad"
    step = Step(f"{ROOM}:count_step", {"log": str(log)})
    fails = Step(f"{ROOM}:count_step", {"log": str(bad), "fail": True})
    peers = [
        fake("A", prepare=(step,)),
        fake("B", prepare=(step, fails)),
        fake("C", prepare=(fails, step)),
        fake("D", prepare=(step,)),
    ]
    report = run(fake(), *peers)
    reasons = [entry["reason"] for entry in report["peers"]]
    why = "preparation: RuntimeError: cannot prepare"
    assert reasons == [None, why, why, None]
    assert len(log.read_text().splitlines()) == 1
    assert len(bad.read_text().splitlines()) == 1
    assert str(os.getpid()) not in log.read_text()


def test_a_subject_that_fails_is_an_error(tmp_path):
    log = tmp_path / "log"
    subject = Contender("ours", "int8", f"{ROOM}:refusing")
    with pytest.raises(TvmcompError, match="ours:int8 could not be measured: ValueError: no 1"):
        run(subject, fake("B", log=str(log)))
    assert not log.exists()  # nobody else was started
    with pytest.raises(TvmcompError, match="SIGSEGV"):
        run(broken("segfault", good=4))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"inputs": []}, DataError),
        ({"threads": 0}, UsageError),
        ({"pin": [100_000]}, UsageError),
        ({"turns": Turns(rounds=0)}, UsageError),
        ({"turns": Turns(warmup=-1)}, UsageError),
    ],
)
def test_wrong_settings_are_refused(options, error):
    with pytest.raises(error):
        run(fake(), **options)


def test_names_numpy_reserves_are_fine_as_inputs():
    inputs = [{"x": INPUTS[0]["x"], "file": np.ones(2), "a/b:0": np.ones(1), "names": np.ones(1)}]
    assert run(fake(), inputs=inputs)["subject"]["repeats"] == 4


def test_progress_is_told():
    told = []
    run(fake(), fake("B"), progress=lambda *event: told.append(event))
    assert ("start ours:int8", 0, None) in told
    assert told[-1] == ("round", 2, 2)


def test_a_second_interrupt_leaves_no_process(tmp_path, monkeypatch):
    worker = Worker(tmp_path / "log", 1, None)

    def impatient():
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "_exited", impatient)
    with pytest.raises(KeyboardInterrupt):
        worker.close()
    assert worker._process.returncode == -signal.SIGKILL
