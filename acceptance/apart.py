"""Run one function in a process of its own: `python -m acceptance.apart module:function '{json}'`."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from acceptance.host import ROOT

__all__ = ["environment", "run_apart"]

_MARK = "acceptance-result:"
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TVM_NUM_THREADS",
)


def environment(threads: int | None = None) -> dict[str, str]:
    """This process's, able to import the checkout; `threads` for every library that reads one."""
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    limits = {} if threads is None else dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return {**os.environ, **limits, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run_apart(
    function: str, options: Mapping[str, Any], *, threads: int | None = None, timeout: float = 900
) -> Any:
    """What `function` ("module:name") returns for `options`; RuntimeError if it or its process fails."""
    command = [sys.executable, "-m", "acceptance.apart", function, json.dumps(dict(options))]
    done = subprocess.run(
        command, env=environment(threads), cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
    for line in reversed(done.stdout.splitlines()):
        if done.returncode == 0 and line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
    code = done.returncode
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
    raise RuntimeError(f"{function}: {how}: {done.stderr.strip()[-1500:]}")


def _main() -> None:
    module, _, name = sys.argv[1].partition(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    print(_MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    _main()
