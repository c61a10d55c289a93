"""Many callers of one network: equal results, bounded threads, executors and memory."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime import tiny
from tvmcomp.artifact import Payload
from tvmcomp.errors import UsageError
from tvmcomp.runtime import Network, load, native, pool

CALLERS, CALLS = 8, 1000


def tasks() -> int:
    """Threads of this process, as the kernel counts them."""
    return len(os.listdir("/proc/self/task"))


def running() -> int:
    """Threads of this process that run or want to, this one not counted."""
    states = [stat.read_text() for stat in Path("/proc/self/task").glob("*/stat")]
    return sum(text.rpartition(")")[2].split()[0] == "R" for text in states) - 1


def settled(want: int) -> int:
    """`tasks()` once it is `want`, or after 30 seconds; TVM's idle workers spin before they end."""
    deadline = time.monotonic() + 30
    while tasks() != want and time.monotonic() < deadline:
        time.sleep(0.02)
    return tasks()


@pytest.fixture
def idle() -> int:
    """`tasks()` when the threads of earlier tests are gone."""
    gc.collect()
    quiet = 0
    while quiet < 10:
        time.sleep(0.02)
        quiet = quiet + 1 if running() == 0 else 0
    return tasks()


def resident() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[native.Executor]:
    """Every executor made during the test."""
    executors: list[native.Executor] = []

    class Counted(native.Executor):
        def __init__(self, program: native.Program) -> None:
            super().__init__(program)
            executors.append(self)

    monkeypatch.setattr(pool, "Executor", Counted)
    return executors


def call_from_many(net: Network, callers: int, calls: int) -> tuple[list[str], int]:
    """Problems seen, and the most threads the process had meanwhile."""
    problems: list[str] = []
    barrier = threading.Barrier(callers)

    def caller(seed: int) -> None:
        given = tiny.inputs(seed)
        want = {name: array.tobytes() for name, array in tiny.expected(**given).items()}
        barrier.wait()
        for call in range(calls):
            got = {name: array.tobytes() for name, array in net.run(given).items()}
            if got != want:
                problems.append(f"caller {seed}, call {call}")

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(callers)]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, tasks())
        time.sleep(0.005)
    for thread in threads:
        thread.join()
    return problems, most


@pytest.mark.parametrize(("threads", "executors"), [(1, 2), (1, 8), (2, 2)])
def test_eight_callers(
    tiny_file: Path, made: list[native.Executor], idle: int, threads: int, executors: int
) -> None:
    with load(tiny_file, threads=threads, executors=executors) as net:
        problems, _ = call_from_many(net, CALLERS, 20)
        memory = resident()
        more, most = call_from_many(net, CALLERS, CALLS)
        assert problems + more == []
        assert resident() - memory < 16 * 2**20
        assert len(made) <= executors
        own = executors * threads if threads > 1 else 0
        assert most <= idle + CALLERS + own
    assert settled(idle) == idle


def test_threads_are_as_asked_for(tiny_payload: Payload, idle: int) -> None:
    for threads in (1, 2, 3, 8):
        net = Network.from_payload(tiny_payload, threads=threads, executors=1)
        for _ in range(3):
            net.run(tiny_payload.golden_inputs)
        assert tasks() == idle + (threads if threads > 1 else 0)
        net.close()
        assert settled(idle) == idle


def test_one_thread_stays_one_after_tvm_used_more(tiny_payload: Payload) -> None:
    net = Network.from_payload(tiny_payload)
    ffi = net._pool._program.ffi
    counts = []

    def work() -> None:
        native.set_threads(ffi, 4)
        counts.append(tasks())
        net.run(tiny_payload.golden_inputs)
        launched = ffi.get_global_func("runtime.NumThreads")()
        counts.append(launched)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert counts[1] == 1
    net.close()


def test_a_network_nobody_holds_gives_its_threads_back(tiny_payload: Payload, idle: int) -> None:
    net = Network.from_payload(tiny_payload, threads=2, executors=2)
    assert tasks() > idle
    del net
    gc.collect()
    assert settled(idle) == idle


@pytest.mark.parametrize("threads", [1, 2])
def test_callers_wait_for_a_free_executor(
    tiny_payload: Payload, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    lock = threading.Lock()
    running: list[native.Executor] = []
    together = threading.Barrier(3, timeout=20)
    most = 0

    class Slow(native.Executor):
        def run(self, inputs: object, outputs: object) -> None:
            nonlocal most
            with lock:
                assert self not in running
                running.append(self)
                most = max(most, len(running))
            # Passes only when three run at once.
            together.wait()
            super().run(inputs, outputs)
            time.sleep(0.01)
            with lock:
                running.remove(self)

    monkeypatch.setattr(pool, "Executor", Slow)
    net = Network.from_payload(tiny_payload, threads=threads, executors=3, check_golden=False)
    results = []
    callers = [
        threading.Thread(target=lambda: results.append(net.run(tiny_payload.golden_inputs)))
        for _ in range(9)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 9
    assert not together.broken
    assert most == 3
    net.close()


def test_default_executors_fill_the_processors(tiny_payload: Payload) -> None:
    cores = len(os.sched_getaffinity(0))
    for threads in (1, 2, 2 * cores):
        with Network.from_payload(tiny_payload, threads=threads) as net:
            assert net.executors == max(1, cores // threads)


@pytest.mark.parametrize(
    ("threads", "executors"), [(0, None), (-1, None), (1.5, None), (True, None), (1, 0), (2000, 1)]
)
def test_counts_that_are_none(tiny_payload: Payload, threads: object, executors: object) -> None:
    with pytest.raises(UsageError, match="give a whole number from 1 to 1024"):
        Network.from_payload(tiny_payload, threads=threads, executors=executors)


@pytest.mark.parametrize("threads", [1, 2])
def test_closed(tiny_payload: Payload, threads: int) -> None:
    with Network.from_payload(tiny_payload, threads=threads) as net:
        net.run(tiny_payload.golden_inputs)
    for _ in range(2):
        with pytest.raises(UsageError, match="this network is closed; load it again"):
            net.run(tiny_payload.golden_inputs)
        net.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_runs_once_it_is_closed(
    tiny_payload: Payload, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    started, done = threading.Event(), threading.Event()

    class Slow(native.Executor):
        def run(self, inputs: object, outputs: object) -> None:
            started.set()
            time.sleep(0.3)
            super().run(inputs, outputs)
            done.set()

    monkeypatch.setattr(pool, "Executor", Slow)
    net = Network.from_payload(tiny_payload, threads=threads, check_golden=False)
    caller = threading.Thread(target=net.run, args=(tiny_payload.golden_inputs,))
    caller.start()
    assert started.wait(20)
    net.close()
    assert done.is_set()
    caller.join()


@pytest.mark.parametrize("threads", [1, 2])
def test_close_waits_for_running_calls(tiny_payload: Payload, threads: int) -> None:
    net = Network.from_payload(tiny_payload, threads=threads, executors=2)
    outcomes: list[str] = []
    want = {name: array.tobytes() for name, array in tiny_payload.golden_outputs.items()}

    def caller() -> None:
        try:
            while True:
                got = net.run(tiny_payload.golden_inputs)
                outcomes.append(
                    "ok" if {n: a.tobytes() for n, a in got.items()} == want else "wrong"
                )
        except UsageError:
            outcomes.append("closed")

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    while outcomes.count("ok") < 100:
        time.sleep(0.001)
    net.close()
    for thread in callers:
        thread.join()
    assert outcomes.count("closed") == 4
    assert "wrong" not in outcomes


def test_the_processor_binding_of_callers_is_left_alone(
    tiny_file: Path, run_script: Callable[..., str]
) -> None:
    code = """
import os, sys, tvmcomp
before = os.sched_getaffinity(0)
for threads in (1, 2):
    net = tvmcomp.load(sys.argv[1], threads=threads)
    masks = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
    print(all(mask == before for mask in masks))
"""
    assert run_script(code, tiny_file).split() == ["True", "True"]


def test_after_a_fork(tiny_file: Path, run_script: Callable[..., str]) -> None:
    code = """
import os, sys, numpy, tvmcomp
from tvmcomp.errors import UsageError
inputs = (numpy.ones((8, 16), "f4"), numpy.ones((8, 16), "i4"), 1.0)
nets = {n: tvmcomp.load(sys.argv[1], threads=n, executors=1) for n in (1, 2)}
if os.fork() == 0:
    print(nets[1](*inputs)[1][0, 0], flush=True)
    try:
        nets[2](*inputs)
    except UsageError as error:
        print("load the artifact after the fork" in str(error), flush=True)
    os._exit(0)
os.wait()
print(nets[2](*inputs)[1][0, 0])
"""
    assert run_script(code, tiny_file).split() == ["2", "True", "2"]


def test_results_do_not_depend_on_the_number_of_threads(tiny_payload: Payload) -> None:
    given = tiny.inputs(21)
    results = set()
    for threads in (1, 2, 3):
        with Network.from_payload(tiny_payload, threads=threads, executors=1) as net:
            results.add(net.run(given)["y"].tobytes())
    assert results == {tiny.expected(**given)["y"].tobytes()}
    assert np.isfinite(tiny.expected(**given)["y"]).all()
