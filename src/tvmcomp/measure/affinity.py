"""Pinning to processors: every thread of this process for a while, and what a child then inherits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tvmcomp.errors import UsageError

__all__ = ["check_threads", "pinned"]

_TASKS = Path("/proc/self/task")


def check_threads(threads: int, pin: Sequence[int] | None) -> None:
    """Raise UsageError unless `threads` is positive and fits the pinned processors, all usable here."""
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}; pass threads=1")
    if pin is None:
        return
    usable = os.sched_getaffinity(0)
    if not pin or not set(pin) <= usable:
        raise UsageError(
            f"cannot pin to processors {list(pin)}; this process may use {sorted(usable)}"
        )
    if threads > len(set(pin)):
        raise UsageError(
            f"{threads} threads do not fit the {len(set(pin))} pinned processors {list(pin)}; "
            "pin one per thread"
        )


@contextmanager
def pinned(cpus: Sequence[int] | None) -> Iterator[None]:
    """Hold every thread of this process on `cpus`, then give each its old set back; None does nothing."""
    if cpus is None:
        yield
        return
    before = {thread: os.sched_getaffinity(thread) for thread in _threads()}
    try:
        for thread in before:
            _move(thread, set(cpus))
        yield
    finally:
        # Threads started meanwhile inherited the pinned set; they get the caller's old one.
        own = before[os.getpid()]
        for thread in _threads():
            _move(thread, before.get(thread, own))


def _threads() -> list[int]:
    return [int(entry.name) for entry in _TASKS.iterdir()]


def _move(thread: int, cpus: set[int]) -> None:
    # A thread may end between the listing and the call.
    with suppress(ProcessLookupError):
        os.sched_setaffinity(thread, cpus)
