"""The other end of `worker.py`: start it, ask it with a deadline, end it and all it started."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tvmcomp.measure.affinity import pinned

__all__ = ["Worker", "WorkerFailed"]

# Read by the pools of torch and MKL, numpy, OpenMP at large, and TVM, when each of them loads.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TVM_NUM_THREADS",
)
_GRACE = 2.0


class WorkerFailed(Exception):
    """A contender could not do what it was asked; the message is the reason, in one line."""


class Worker:
    """A fresh Python process that answers one request at a time."""

    def __init__(self, log: Path, threads: int, pin: Sequence[int] | None) -> None:
        paths = [path for path in sys.path if path]
        environment = {
            **os.environ,
            **{name: str(threads) for name in _THREAD_VARIABLES},
            "PYTHONPATH": os.pathsep.join(paths),
        }
        self._log = log
        self._waiting = b""
        with log.open("wb") as errors, pinned(pin):
            # A session of its own, so that what a contender starts (compilers) ends with it.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tvmcomp.measure.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerFailed("its process has no pipes")
        self._requests = self._process.stdin
        self._replies = self._process.stdout

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The reply to `request`; WorkerFailed if it is a refusal, late, or the process is gone."""
        try:
            self._requests.write(json.dumps(dict(request)).encode() + b"\n")
            self._requests.flush()
        except (BrokenPipeError, ValueError):  # ValueError: closed after an earlier failure
            raise WorkerFailed(self._epitaph()) from None
        reply: dict[str, Any] = json.loads(self._line(str(request["do"]), seconds))
        if not reply.pop("ok"):
            raise WorkerFailed(reply["reason"])
        return reply

    def close(self) -> None:
        """End the process: kindly if it listens, else by force, with everything it started."""
        try:
            with suppress(OSError):
                self._requests.close()
            self._exited()
        finally:  # whoever interrupts twice has no patience, but orphans must not stay
            self._kill()
            self._replies.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _line(self, what: str, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._waiting:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._replies], [], [], left)[0]:
                self._kill()
                raise WorkerFailed(f"did not finish {what!r} within {seconds:g} s and was ended")
            chunk = os.read(self._replies.fileno(), 1 << 16)
            if not chunk:
                raise WorkerFailed(self._epitaph())
            self._waiting += chunk
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line

    def _exited(self) -> bool:
        """Wait a little for the process to end, and leave it to be reaped: its group's id stays ours."""
        deadline = time.monotonic() + _GRACE
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while self._process.returncode is None:
            if os.waitid(os.P_PID, self._process.pid, options) is not None:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def _kill(self) -> None:
        if self._process.returncode is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _epitaph(self) -> str:
        ended = self._exited()
        self._kill()
        if not ended:
            return "stopped answering and was ended"
        code = self._process.returncode
        how = (
            f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit {code}"
        )
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"its process {how}" + (f": {lines[-1].strip()[:300]}" if lines else "")
