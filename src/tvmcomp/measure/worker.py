"""A contender's own process: one JSON request a line on stdin, one JSON reply a line on stdout.

    {"do": "prepare", "function": "m:f", "options": {}}           -> {"ok": true}
    {"do": "open", "factory": "m:f", "options": {}, "threads": 1} -> {"ok": true, "versions", "settings"}
    {"do": "outputs", "inputs": [npz paths], "to": [npz paths]}   -> {"ok": true}
    {"do": "warm", "inputs": npz path, "calls": 5}                -> {"ok": true}
    {"do": "block", "wake": 2, "repeats": 6, "min_seconds": 0.4}  -> {"ok": true, "ns": [...]}

Anything that fails is answered {"ok": false, "reason"}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tvmcomp.errors import TvmcompError
from tvmcomp.measure.contender import Runner, resolve
from tvmcomp.measure.exchange import load_arrays, save_arrays
from tvmcomp.measure.latency import time_calls

__all__ = ["Session", "main"]

_REASON_LENGTH = 400


class Session:
    """What the process holds between requests: the runner and the timed input."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._inputs: dict[str, np.ndarray] = {}

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to one request; never raises for what a contender does wrong."""
        actions: dict[str, Callable[..., dict[str, Any]]] = {
            "prepare": self._prepare,
            "open": self._open,
            "outputs": self._outputs,
            "warm": self._warm,
            "block": self._block,
        }
        arguments = dict(request)
        try:
            return {"ok": True, **actions[arguments.pop("do")](**arguments)}
        except Exception as error:
            return {"ok": False, "reason": _reason(error)}

    def _prepare(self, function: str, options: Mapping[str, Any]) -> dict[str, Any]:
        resolve(function)(**options)
        return {}

    def _open(self, factory: str, options: Mapping[str, Any], threads: int) -> dict[str, Any]:
        self._runner = resolve(factory)(threads=threads, **options)
        return {"versions": dict(self._running.versions), "settings": dict(self._running.settings)}

    def _outputs(self, inputs: list[str], to: list[str]) -> dict[str, Any]:
        for source, target in zip(inputs, to, strict=True):
            outputs = self._running.run(load_arrays(Path(source)))
            save_arrays(Path(target), {str(i): np.asarray(o) for i, o in enumerate(outputs)})
        return {}

    def _warm(self, inputs: str, calls: int) -> dict[str, Any]:
        self._inputs = load_arrays(Path(inputs))
        for _ in range(calls):
            self._running.run(self._inputs)
        return {}

    def _block(self, settle: float, wake: int, repeats: int, min_seconds: float) -> dict[str, Any]:
        run, inputs = self._running.run, self._inputs
        time.sleep(settle)
        for _ in range(wake):
            run(inputs)
        return {"ns": time_calls(lambda: run(inputs), repeats, min_seconds)}

    @property
    def _running(self) -> Runner:
        if self._runner is None:
            raise TvmcompError("nothing is open in this worker; send 'open' first")
        return self._runner


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; pip install it, or tvmcomp[peers]"
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    if not isinstance(error, TvmcompError):
        text = f"{type(error).__name__}: {text}"
    return text[:_REASON_LENGTH]


def main() -> None:
    """Serve requests until stdin ends."""
    # Libraries print to stdout as they please; the protocol keeps a private copy of it.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session = Session()
    for line in sys.stdin:
        replies.write(json.dumps(session.answer(json.loads(line)), default=str) + "\n")
    replies.flush()
    # Tearing down other libraries' thread pools can hang, and there is nothing left to save.
    os._exit(0)


if __name__ == "__main__":
    main()
