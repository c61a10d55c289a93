"""Contenders for the bench's tests, imported by the worker processes: no test in this file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


class Fake:
    """Sleeps `ms` a call and notes (label, pid, environment, processors) of every call in `log`."""

    def __init__(self, label, threads, log=None, ms=0.2, slow_first=0, offset=0.0):
        self.versions = {"fake": "1"}
        self.settings = {"threads": threads}
        self._label = label
        self._log = log and Path(log)
        self._ms = ms
        self._slow = slow_first
        self._offset = offset

    def run(self, inputs):
        if self._log:
            seen = f"{self._label} {os.getpid()} {os.environ['OMP_NUM_THREADS']}"
            cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
            with self._log.open("a") as file:
                file.write(f"{seen} {cpus} {inputs['x'].sum():.4f}\n")
        time.sleep((50 if self._slow > 0 else self._ms) / 1e3)
        self._slow -= 1
        return [inputs["x"] + self._offset]


def fake(*, threads, label="fake", **options):
    return Fake(label, threads, **options)


def printing(*, threads):
    """A library that prints to stdout, from Python and from C."""
    print("hello from python", flush=True)
    os.write(1, b"hello from C\n")
    return Fake("printing", threads)


def refusing(*, threads):
    raise ValueError(f"no {threads} threads\nsecond line")


def missing(*, threads):
    import a_library_nobody_has  # noqa: F401

    return Fake("missing", threads)


class Failing(Fake):
    """Behaves for `good` calls, then does `how`."""

    def __init__(self, threads, good, how, note=None):
        super().__init__("failing", threads)
        self._good = good
        self._how = how
        self._note = note

    def run(self, inputs):
        self._good -= 1
        if self._good >= 0:
            return super().run(inputs)
        if self._how == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._how == "exit":
            print("the last words", file=sys.stderr, flush=True)
            os._exit(3)
        if self._how == "raise":
            raise RuntimeError("out of luck")
        child = subprocess.Popen(["sleep", "60"])
        Path(self._note).write_text(f"{os.getpid()} {child.pid}")
        time.sleep(60)
        return []


def failing(*, threads, good, how, note=None):
    return Failing(threads, good, how, note)


def count_step(*, log, fail=False):
    """A preparation that notes each of its runs."""
    with Path(log).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if fail:
        raise RuntimeError("cannot prepare")


class Numpy:
    """The network of `tiny_model.npz` in numpy: conv 3x3, relu, mean, dense."""

    def __init__(self, path):
        self.versions = {"numpy": np.__version__}
        self.settings = {}
        with np.load(path) as archive:
            self._weights = {name: archive[name] for name in archive.files}

    def run(self, inputs):
        (x,) = inputs.values()
        w = self._weights
        padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        hidden = np.einsum("nchwij,ocij->nohw", windows, w["conv"]) + w["bias"][:, None, None]
        return [(np.maximum(hidden, 0).mean((2, 3)) @ w["dense"] + w["shift"]).astype(np.float32)]


def numpy_network(*, threads, path):
    del threads  # numpy decides by its environment
    return Numpy(path)
