"""Latency against a clock of the test's own, and the provenance that goes with it."""

from __future__ import annotations

import gc
import importlib
import json
import os
import threading

import numpy as np
import pytest

from tvmcomp.errors import DataError, UsageError
from tvmcomp.measure import Measurement, describe_inputs, latency
from tvmcomp.measure.affinity import pinned
from tvmcomp.measure.latency import spread, time_calls


class Clock:
    """Time that only `work` moves: each call takes the next of `durations` (ns), the last for ever."""

    def __init__(self, durations):
        self.now = 0
        self.calls = 0
        self._durations = durations

    def __call__(self):
        return self.now

    def work(self):
        self.now += self._durations[min(self.calls, len(self._durations) - 1)]
        self.calls += 1


@pytest.fixture
def clocked(monkeypatch):
    def make(durations):
        clock = Clock(durations)
        # The package exports the function under its module's name.
        module = importlib.import_module("tvmcomp.measure.latency")
        monkeypatch.setattr(module, "perf_counter_ns", clock)
        return clock

    return make


def test_percentiles_are_of_the_timed_calls(clocked):
    clock = clocked([i * 1_000_000 for i in range(1, 12)])  # 1 ms ... 11 ms
    found = latency(clock.work, warmup=0, repeats=11, min_seconds=0)
    assert (found.p10_ms, found.median_ms, found.p90_ms) == pytest.approx((2.0, 6.0, 10.0))
    assert found.repeats == 11


def test_warmup_is_called_and_not_counted(clocked):
    clock = clocked([900_000_000] * 3 + [1_000_000])
    found = latency(clock.work, warmup=3, repeats=10, min_seconds=0)
    assert clock.calls == 13
    assert found.warmup == 3
    assert found.repeats == 10
    assert found.p90_ms == found.p10_ms == 1.0


def test_repeats_grow_until_the_time_is_reached(clocked):
    clock = clocked([1_000_000])
    assert latency(clock.work, warmup=0, repeats=5, min_seconds=0.1).repeats == 100
    clock = clocked([1_000_000_000])
    assert latency(clock.work, warmup=0, repeats=5, min_seconds=0.1).repeats == 5


def test_samples_are_bounded_for_calls_that_take_no_time(clocked):
    clock = clocked([0])
    assert len(time_calls(clock.work, 3, 1.0)) == 20_000
    assert len(time_calls(clock.work, 25_000, 1.0)) == 25_000


def test_a_real_sleep_is_measured():
    import time

    found = latency(lambda: time.sleep(0.003), warmup=1, repeats=5, min_seconds=0)
    assert 3.0 <= found.p10_ms <= found.median_ms <= found.p90_ms < 300


def test_no_collection_during_timed_calls_and_the_collector_is_given_back():
    states = []
    time_calls(lambda: states.append(gc.isenabled()), 3, 0)
    assert states == [False] * 3
    assert gc.isenabled()

    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        time_calls(fail, 1, 0)
    assert gc.isenabled()


def test_pinning_holds_every_thread_meanwhile_and_is_undone():
    before = os.sched_getaffinity(0)
    cpu = min(before)
    ready, done = threading.Event(), threading.Event()
    other = []

    def wait():
        other.append(threading.get_native_id())
        ready.set()
        done.wait()

    helper = threading.Thread(target=wait, daemon=True)
    helper.start()
    ready.wait()
    seen = []

    def call():
        seen.append((os.sched_getaffinity(0), os.sched_getaffinity(other[0])))

    found = latency(call, warmup=0, repeats=1, min_seconds=0, pin=[cpu])
    assert seen == [({cpu}, {cpu})]
    assert found.pinned_cpus == (cpu,)
    assert os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(other[0]) == before
    done.set()
    helper.join()


def test_a_thread_started_while_pinned_is_released():
    before = os.sched_getaffinity(0)
    ready, done = threading.Event(), threading.Event()

    def wait():
        ready.set()
        done.wait()

    with pinned([min(before)]):
        helper = threading.Thread(target=wait, daemon=True)
        helper.start()
        ready.wait()
    assert os.sched_getaffinity(helper.native_id) == before
    done.set()
    helper.join()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"warmup": -1}, "warmup >= 0"),
        ({"repeats": 0}, "repeats >= 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"pin": [100_000]}, "cannot pin"),
        ({"pin": []}, "cannot pin"),
        ({"pin": [min(os.sched_getaffinity(0))], "threads": 2}, "do not fit"),
    ],
)
def test_wrong_settings_are_refused_before_any_call(options, words):
    with pytest.raises(UsageError, match=words):
        latency(lambda: pytest.fail("called"), **options)


def test_provenance_survives_json():
    inputs = describe_inputs({"x": np.zeros((1, 3), np.float32)}, "zeros")
    found = latency(lambda: None, warmup=0, repeats=2, min_seconds=0, inputs=inputs, threads=1)
    data = json.loads(json.dumps(found.to_dict()))
    assert data["schema"] == 1
    assert data["input"]["tensors"] == {"x": "float32[1,3]"}
    assert {"model", "features", "cores", "governor"} <= set(data["device"])
    assert {"name", "implementation", "resolution_ns", "source"} <= set(data["clock"])
    assert {"tvmcomp", "python", "numpy"} <= set(data["versions"])
    assert len(data["load_average"]) == 3
    assert Measurement.from_dict(data) == found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(schema=2), "schema 2"),
        (lambda d: d.pop("p90_ms"), "lacks .'p90_ms'"),
        (lambda d: d.update(mean_ms=1.0), "unknown .'mean_ms'"),
    ],
)
def test_a_foreign_measurement_is_refused(change, words):
    data = latency(lambda: None, warmup=0, repeats=1, min_seconds=0).to_dict()
    change(data)
    with pytest.raises(DataError, match=words):
        Measurement.from_dict(data)


def test_spread_is_in_milliseconds():
    found = spread([2_000_000, 4_000_000])
    assert found.median_ms == 3.0
    assert found.p10_ms == pytest.approx(2.2)
    assert found.p90_ms == pytest.approx(3.8)
