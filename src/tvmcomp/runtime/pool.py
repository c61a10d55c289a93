"""A bounded pool of executors: at most so many networks run at once, further callers wait."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from tvmcomp.errors import UsageError
from tvmcomp.runtime.native import Executor, Program, set_threads

__all__ = ["CallerPool", "Pool", "WorkerPool"]

Arrays = Sequence[np.ndarray]


class Pool(Protocol):
    """Runs the network; `close` waits for running calls and gives memory and threads back."""

    def run(self, inputs: Arrays, outputs: Arrays) -> None: ...

    def close(self) -> None: ...


def _closed() -> UsageError:
    return UsageError("this network is closed; load it again to run it")


class CallerPool:
    """Kernels on the calling thread alone; executors are made as callers need them, up to `size`."""

    def __init__(self, program: Program, size: int) -> None:
        self._program: Program | None = program
        self._size = size
        self._free: list[Executor] = []
        self._permits = threading.Semaphore(size)
        self._closing = threading.Lock()

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """Run here, when one of the executors is free."""
        with self._permits:
            program = self._program
            if program is None:
                raise _closed()
            try:
                # The last one used has its arena in cache.
                executor = self._free.pop()
            except IndexError:
                executor = Executor(program)
            try:
                set_threads(program.ffi, 1)
                executor.run(inputs, outputs)
            finally:
                self._free.append(executor)

    def close(self) -> None:
        """Wait until no call runs, then drop the executors."""
        self._program = None
        with self._closing:  # two that close would each hold some of the permits
            for _ in range(self._size):
                self._permits.acquire()
            self._free.clear()
            self._permits.release(self._size)


class WorkerPool:
    """Kernels on `threads` threads; each executor lives on a thread of its own, which owns the rest.

    TVM starts a pool for every thread that calls it, so callers' threads must not: with `size`
    callers' threads served by `size` workers there are never more than size * threads threads.
    """

    def __init__(self, program: Program, size: int, threads: int) -> None:
        self._process = os.getpid()
        self._closed = False
        self._local = threading.local()
        self._workers = ThreadPoolExecutor(
            size, "tvmcomp", _prepare_worker, (self._local, program, threads)
        )

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """Run on a worker and wait for it."""
        if os.getpid() != self._process:
            raise UsageError(
                "this network's threads stayed in the parent of this forked process; "
                "load the artifact after the fork"
            )
        try:
            future = self._workers.submit(_run_on_worker, self._local, inputs, outputs)
        except RuntimeError:
            if self._closed:
                raise _closed() from None
            raise
        future.result()

    def close(self) -> None:
        """Wait until no call runs, then end the threads."""
        self._closed = True
        if os.getpid() == self._process:
            self._workers.shutdown(wait=True)


def _prepare_worker(local: threading.local, program: Program, threads: int) -> None:
    set_threads(program.ffi, threads)
    local.executor = Executor(program)


def _run_on_worker(local: threading.local, inputs: Arrays, outputs: Arrays) -> None:
    run: Callable[[Arrays, Arrays], None] = local.executor.run
    run(inputs, outputs)
