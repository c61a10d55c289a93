"""Contenders side by side: each in its own process, taking turns on the same input and threads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvmcomp.errors import DataError, TvmcompError, UsageError
from tvmcomp.measure.affinity import check_threads
from tvmcomp.measure.contender import Contender
from tvmcomp.measure.exchange import load_arrays, save_arrays
from tvmcomp.measure.latency import SCHEMA
from tvmcomp.measure.process import Worker, WorkerFailed
from tvmcomp.measure.provenance import (
    clock,
    describe_inputs,
    device,
    load_average,
    versions,
)
from tvmcomp.measure.results import Seat, report

__all__ = ["Limits", "Turns", "bench"]

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Turns:
    """How the time is shared out.

    Each of `rounds` gives every contender one block, in the same order (A B A B ...): `settle`
    seconds in which the last one's threads fall asleep, `wake` untimed calls, then timed calls until
    both its part of `repeats` and of `min_seconds` is reached. `warmup` untimed calls come once,
    before the first round.
    """

    rounds: int = 5
    repeats: int = 30
    min_seconds: float = 2.0
    warmup: int = 5
    wake: int = 2
    settle: float = 0.02


@dataclass(frozen=True)
class Limits:
    """Seconds after which a contender is ended and reported as failed."""

    prepare: float = 600.0
    open: float = 300.0
    turn: float = 120.0


def bench(
    subject: Contender,
    peers: Sequence[Contender],
    inputs: Sequence[Mapping[str, np.ndarray]],
    *,
    description: str,
    threads: int = 1,
    pin: Sequence[int] | None = None,
    turns: Turns | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time `subject` and `peers` on `inputs[0]`, compare their outputs on all `inputs`; the JSON of `bench`.

    A peer that cannot run is an entry with its reason. A subject that cannot run is a TvmcompError.
    `ratio` = the peer's median / the subject's: above 1 the subject is faster.
    """
    turns = turns or Turns()
    check_threads(threads, pin)
    if min(turns.rounds, turns.repeats) < 1 or min(turns.warmup, turns.wake, turns.min_seconds) < 0:
        raise UsageError(f"{turns}: rounds and repeats must be at least 1, the rest not negative")
    if not inputs:
        raise DataError("no input to time on; pass at least one set of inputs")
    load = load_average()
    seats = [Seat(contender) for contender in (subject, *peers)]
    with tempfile.TemporaryDirectory(prefix="tvmcomp-bench-") as folder, ExitStack() as stack:
        table = _Table(Path(folder), threads, pin, turns, limits or Limits(), progress, stack)
        table.lay(inputs)
        table.prepare(seats)
        for number, seat in enumerate(seats):
            table.admit(seat, number, len(inputs))
            _require(seats[0])
        order = table.play(seats)
    _require(seats[0])
    return {
        "schema": SCHEMA,
        **report(seats),
        "threads": threads,
        "pinned_cpus": None if pin is None else list(pin),
        "rounds": turns.rounds,
        "warmup": turns.warmup,
        "order": order,
        "device": device(),
        "clock": clock(),
        "versions": versions(),
        "load_average": None if load is None else list(load),
        "input": describe_inputs(inputs[0], description).to_dict(),
    }


class _Table:
    """The processes at play and the files they share; every failure stays with its seat."""

    def __init__(
        self,
        folder: Path,
        threads: int,
        pin: Sequence[int] | None,
        turns: Turns,
        limits: Limits,
        progress: Progress | None,
        stack: ExitStack,
    ) -> None:
        self._folder = folder
        self._threads = threads
        self._pin = pin
        self._turns = turns
        self._limits = limits
        self._progress = progress
        self._stack = stack
        self._inputs: list[str] = []

    def lay(self, inputs: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Write the inputs where every process reads them."""
        for number, arrays in enumerate(inputs):
            path = self._folder / f"input{number}.npz"
            save_arrays(path, arrays)
            self._inputs.append(str(path))

    def prepare(self, seats: Sequence[Seat]) -> None:
        """Run each distinct step once, in a process of its own; a failure is its contenders' reason."""
        results: list[tuple[object, str | None]] = []
        for seat in seats:
            for step in seat.contender.prepare:
                known = [reason for done, reason in results if done == step]
                if not known:
                    self._tell(f"prepare {seat.label}", 0, None)
                    request = {
                        "do": "prepare",
                        "function": step.function,
                        "options": dict(step.options),
                    }
                    log = self._folder / f"prepare{len(results)}.log"
                    known = [self._once(request, log)]
                    results.append((step, known[0]))
                if known[0] is not None:
                    seat.fail(f"preparation: {known[0]}")
                    break

    def admit(self, seat: Seat, number: int, samples: int) -> None:
        """Start the contender, keep its outputs, warm it up."""
        if seat.reason is not None:
            return
        self._tell(f"start {seat.label}", number, None)
        results = [str(self._folder / f"output{number}-{i}.npz") for i in range(samples)]
        try:
            worker = Worker(self._folder / f"worker{number}.log", self._threads, self._pin)
            seat.worker = self._stack.enter_context(worker)
            opened = worker.ask(
                {
                    "do": "open",
                    "factory": seat.contender.factory,
                    "options": dict(seat.contender.options),
                    "threads": self._threads,
                },
                self._limits.open,
            )
            seat.versions, seat.settings = opened["versions"], opened["settings"]
            outputs = {"do": "outputs", "inputs": self._inputs, "to": results}
            worker.ask(outputs, self._limits.open)
            seat.outputs = [list(load_arrays(Path(path)).values()) for path in results]
            warm = {"do": "warm", "inputs": self._inputs[0], "calls": self._turns.warmup}
            worker.ask(warm, self._limits.turn)
        except WorkerFailed as failure:
            seat.fail(str(failure))

    def play(self, seats: Sequence[Seat]) -> list[str]:
        """Rounds of turns; returns who was timed, in order."""
        turns = self._turns
        block = {
            "do": "block",
            "settle": turns.settle,
            "wake": turns.wake,
            "repeats": -(-turns.repeats // turns.rounds),
            "min_seconds": turns.min_seconds / turns.rounds,
        }
        order: list[str] = []
        for number in range(turns.rounds):
            self._tell("round", number, turns.rounds)
            for seat in seats:
                if seat.worker is None or seat.reason is not None:
                    continue
                order.append(seat.label)
                try:
                    seat.blocks.append(seat.worker.ask(block, self._limits.turn)["ns"])
                except WorkerFailed as failure:
                    seat.fail(str(failure))
        self._tell("round", turns.rounds, turns.rounds)
        return order

    def _once(self, request: Mapping[str, Any], log: Path) -> str | None:
        try:
            with Worker(log, self._threads, self._pin) as worker:
                worker.ask(request, self._limits.prepare)
        except WorkerFailed as failure:
            return str(failure)
        return None

    def _tell(self, what: str, done: int, total: int | None) -> None:
        if self._progress is not None:
            self._progress(what, done, total)


def _require(subject: Seat) -> None:
    if subject.reason is not None:
        raise TvmcompError(f"{subject.label} could not be measured: {subject.reason}")
