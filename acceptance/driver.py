"""Runs rows in a worker process and survives it: a row that kills its process has failed, others go on."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acceptance.apart import environment
from acceptance.host import ROOT, load_average
from acceptance.row import Check, Row, Verdict, verdict

__all__ = ["Result", "drive"]

_ROW_SECONDS = 3600.0


@dataclass(eq=False)
class Result:
    """What became of one row; `stages`: what took how long within it, in seconds."""

    row: Row
    checks: list[Check] = field(default_factory=list)
    not_run: str | None = None
    wall_s: float = 0.0
    load_average: list[float] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """NOT_RUN needs a reason and no failed check."""
        if self.not_run is not None and all(check.ok is not False for check in self.checks):
            return Verdict.NOT_RUN
        return verdict(self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "row": self.row.name,
            "claim": self.row.claim,
            "verdict": self.verdict.value,
            "reason": self.not_run,
            "wall_s": self.wall_s,
            "load_average": self.load_average,
            "checks": [check.to_dict() for check in self.checks],
            "stages_s": self.stages,
        }


def drive(
    rows: Sequence[Row],
    folder: Path,
    *,
    tiny: bool,
    nets: Sequence[str],
    tell: Callable[[Result, Check | None], None],
    row_seconds: float = _ROW_SECONDS,
) -> list[Result]:
    """Run `rows` in order; `tell` hears every check, and None when a row has ended."""
    results = {row.name: Result(row) for row in rows}
    waiting = [row.name for row in rows]
    while waiting:
        options = {"folder": str(folder), "tiny": tiny, "nets": list(nets), "rows": waiting}
        _Shift(results, waiting, tell, row_seconds).work(options)
    return list(results.values())


class _Shift:
    """One worker process; `work` returns when it has ended, with at least one row less waiting."""

    def __init__(
        self,
        results: dict[str, Result],
        waiting: list[str],
        tell: Callable[[Result, Check | None], None],
        row_seconds: float,
    ) -> None:
        self._results = results
        self._waiting = waiting
        self._tell = tell
        self._row_seconds = row_seconds
        self._begun = time.monotonic()

    def work(self, options: dict[str, Any]) -> None:
        # A session of its own, so that whatever a row started ends with it.
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "acceptance.worker", json.dumps(options)],
            stdout=subprocess.PIPE,
            env=environment(),
            cwd=ROOT,
            start_new_session=True,
        )
        self._begun = time.monotonic()
        try:
            late = self._listen(process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        if self._waiting:
            how = (
                f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit {code}"
            )
            name = self._waiting[0]
            text = f"took more than {self._row_seconds:g} s" if late else f"its process {how}"
            self._check(name, Check(name, text, "no crash", False))
            self._end(name, time.monotonic() - self._begun)

    def _listen(self, process: subprocess.Popen[bytes]) -> bool:
        """Take in events until the process closes its end; True if a row took too long."""
        assert process.stdout is not None
        buffered = b""
        while True:
            left = self._begun + self._row_seconds - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                return True
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                process.wait()
                return False
            *lines, buffered = (buffered + chunk).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        name = event["row"]
        if event["event"] == "start":
            self._begun = time.monotonic()
            self._results[name].load_average = load_average()
        elif event["event"] == "check":
            self._check(name, Check(**event["check"]))
        else:
            self._results[name].not_run = event.get("not_run")
            self._results[name].stages = event["stages"]
            self._end(name, event["wall_s"])

    def _check(self, name: str, check: Check) -> None:
        self._results[name].checks.append(check)
        self._tell(self._results[name], check)

    def _end(self, name: str, seconds: float) -> None:
        self._results[name].wall_s = round(seconds, 2)
        self._waiting.remove(name)
        self._tell(self._results[name], None)
