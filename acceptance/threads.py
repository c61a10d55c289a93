"""Eight threads call one artifact 1,000 times each: results, memory, number of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from acceptance.apart import run_apart
from acceptance.context import Context
from acceptance.row import Check, Row, at_most, figure, holds, tried

__all__ = ["ROW", "measure"]

_CALLERS, _CALLS = 8, 1000
# Allocator slack; a leak of one output a call would be 8,000 times 4 kB.
_GROWTH_MB = 16.0


def measure(
    artifact: str, inputs: str, callers: int, calls: int, threads: int, executors: int
) -> dict[str, Any]:
    """Call from `callers` threads at once; for a fresh process."""
    from tvmcomp.runtime import load

    images = np.load(inputs)
    begun = _status("Threads")
    with load(artifact, threads=threads, executors=executors) as network:
        want = [np.asarray(network(x)).tobytes() for x in images]
        wrong = [0] * callers
        failures: list[str] = []
        # After this many calls every caller has all that it will ever hold.
        settle, ready = max(1, calls // 10), threading.Barrier(callers + 1)

        def call(number: int) -> None:
            try:
                for i in range(calls):
                    if i == settle:
                        ready.wait(600)
                        ready.wait(600)
                    which = (number + i) % len(images)
                    got = np.asarray(network(images[which]))
                    wrong[number] += got.tobytes() != want[which]
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")
                ready.abort()

        workers = [threading.Thread(target=call, args=(n,)) for n in range(callers)]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        try:
            ready.wait(600)
            settled = _status("VmRSS")
            ready.wait(600)
        except threading.BrokenBarrierError:
            settled = 0
        most_threads = peak = 0
        while any(worker.is_alive() for worker in workers):
            most_threads, peak = max(most_threads, _status("Threads")), max(peak, _status("VmRSS"))
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        end = _status("VmRSS")
    time.sleep(0.2)
    return {
        "calls": callers * calls,
        "wrong": sum(wrong),
        "failures": failures,
        "seconds": seconds,
        "settled_mb": settled / 1024,
        "peak_growth_mb": (peak - settled) / 1024,
        "end_growth_mb": (end - settled) / 1024,
        # Beyond what this process had and the callers themselves.
        "threads": most_threads - begun - callers,
        "threads_left": _status("Threads") - begun,
    }


def _status(key: str) -> int:
    """A number from /proc/self/status: threads, or kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise KeyError(key)


def _one(
    context: Context, artifact: Path, inputs: Path, threads: int, executors: int
) -> Iterator[Check]:
    about = f"{threads} thread{'s' * (threads > 1)} a call, {executors} at once"
    options = {
        "artifact": str(artifact),
        "inputs": str(inputs),
        "callers": _CALLERS,
        "calls": context.scaled(_CALLS),
        "threads": threads,
        "executors": executors,
    }
    found = run_apart("acceptance.threads:measure", options, timeout=3000)
    yield holds(
        f"{about}: {found['calls']} calls from {_CALLERS} threads equal the single call",
        found["wrong"] == 0 and not found["failures"],
        f"{found['wrong']} wrong; {found['failures'][:3]}",
    )
    yield at_most(f"{about}: growth of memory at its peak, MB", found["peak_growth_mb"], _GROWTH_MB)
    # On one thread a call runs on its caller's; more are the network's own.
    allowed = 0 if threads == 1 else threads * executors
    yield at_most(f"{about}: most threads of the network's own", found["threads"], allowed)
    yield at_most(f"{about}: threads left after closing", found["threads_left"], 0)
    rate = found["calls"] / found["seconds"]
    yield figure(
        f"{about}: calls per second",
        rate,
        f"{found['seconds']:.1f} s, {found['settled_mb']:.0f} MB",
    )


def _run(context: Context) -> Iterator[Check]:
    net = context.net("resnet18")
    artifact = context.compiled(net, "torch", "int8").path
    inputs = context.folder / "threads.npy"
    np.save(inputs, np.stack([sample["x"] for sample in context.evaluation(net)]))
    for threads, executors in ((1, 2), (2, 1)):
        yield from tried(
            f"{threads} threads",
            lambda t=threads, e=executors: _one(context, artifact, inputs, t, e),
        )


ROW = Row(
    "threads", "8 threads, 1,000 calls each: all equal, memory bounded, threads as asked for", _run
)
