"""One ONNX node test through our pipeline, judged; runs in a child process that may crash."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import tvmcomp as tc
from acceptance.onnx_cases import Case, load_cases
from acceptance.onnx_compare import compare
from tvmcomp.errors import TvmcompError
from tvmcomp.target import Target

__all__ = ["judge", "serve"]

_MEMORY_BYTES = 12 << 30

# The tests' own, of each value: some of their expected outputs are written with few digits.
_EXPECTED_TOLERANCE = 1e-3


def serve(connection: Connection) -> None:
    """Judge the cases whose names come in, until None comes."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    cases, _ = load_cases()
    for name in iter(connection.recv, None):
        connection.send(judge(cases[name]))


def judge(case: Case) -> dict[str, Any]:
    """JSON values: `verdict` is right, wrong, refused or failed; `reason` is one line."""
    begun = time.perf_counter()
    verdict, reason, oracle = "right", "", "expected"
    try:
        got = _ours(case)
    except TvmcompError as error:
        verdict, reason = "refused", str(error)
        if "\n" in reason.strip():
            verdict = "failed"
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        verdict, reason = "failed", f"{type(error).__name__}: {first}"
    else:
        theirs = _onnxruntime(case)
        if theirs is not None and not _differ(theirs, case.outputs, _EXPECTED_TOLERANCE):
            oracle = "onnxruntime"
            reason = _differ(got, theirs)
        reason = reason or _differ(got, case.outputs, _EXPECTED_TOLERANCE)
        # Where ONNX Runtime departs from what the test expects, either is a meaning of the operator.
        if reason and theirs is not None and oracle == "expected" and not _differ(got, theirs):
            oracle, reason = "onnxruntime alone", ""
        verdict = "wrong" if reason else "right"
    return {
        "case": case.name,
        "operator": case.operator,
        "verdict": verdict,
        "reason": " ".join(reason.split())[:400],
        "oracle": oracle if verdict in ("right", "wrong") else "",
        "seconds": round(time.perf_counter() - begun, 3),
    }


@cache
def _host() -> Target:
    """Detected once: every case compiles for it."""
    return Target.load("host")


def _ours(case: Case) -> list[np.ndarray]:
    """Import, compile, save, load, run."""
    model = tc.from_onnx(case.model)
    inputs = {name: case.inputs[name] for name in model.signature.inputs}
    executable = tc.compile(model, target=_host(), golden=inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.tvmcomp"
        executable.save(path)
        with tc.load(path) as network:
            outputs = network.run(inputs)
    return list(outputs.values())


def _onnxruntime(case: Case) -> list[np.ndarray] | None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            case.original.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        outputs: list[np.ndarray] = session.run(None, dict(case.all_inputs))
    except Exception:
        return None
    return outputs


def _differ(got: Sequence[np.ndarray], want: Sequence[np.ndarray], of_each: float = 0.0) -> str:
    if len(got) != len(want):
        return f"{len(got)} outputs instead of {len(want)}"
    pairs = zip(got, want, strict=True)
    reasons = (compare(np.asarray(a), np.asarray(b), of_each=of_each) for a, b in pairs)
    return next((f"output {i}: {reason}" for i, reason in enumerate(reasons) if reason), "")


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(judge(load_cases()[0][wanted]))
