"""One mutant in this process, which is a child with limits and may die of it."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import version_converter
from onnx.reference import ReferenceEvaluator

import tvmcomp.frontend.onnx  # noqa: F401  # What would be imported late is imported before the fork.
from acceptance.onnx_compare import compare
from tvmcomp.cli.failure import failure_of
from tvmcomp.flow import compile_model
from tvmcomp.frontend import load_model
from tvmcomp.measure import sample_inputs
from tvmcomp.target import Target

__all__ = ["judge", "limited", "ours"]

_MEMORY = 3 << 30
_CPU_SECONDS = 40
# A damaged weight may cancel what others add, so a result is judged by the largest value.
_OF_LARGEST = 1e-4
_HOST = Target.load("host")
# Every operator of this opset has a kernel in ONNX Runtime, which those of opset 6 and before lack.
_NEWER_OPSET = 13


def limited(folder: Path, work: Callable[[Path], dict[str, Any]]) -> None:
    """`work` under limits, its result in result.json and all it prints in output.txt."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    result = work(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    (folder / "result.json").write_text(json.dumps(result))


def ours(folder: Path) -> dict[str, Any]:
    """Import, compile and run `folder`/home/model.onnx; inputs and outputs go to .npz files."""
    try:
        model = load_model(folder / "home" / "model.onnx")
        executable = compile_model(model, target=_HOST)
        inputs = sample_inputs(executable.payload.function.signature)
        outputs = executable.run(inputs)
    except Exception as error:
        failure = failure_of(error)
        return {"exit": failure.exit_code, "message": failure.message, "raw": str(error)}
    np.savez(folder / "inputs.npz", *inputs.values())
    np.savez(folder / "outputs.npz", *outputs.values())
    return {"exit": 0, "inputs": list(inputs)}


def judge(folder: Path) -> dict[str, Any]:
    """Compare what `ours` left with ONNX Runtime, else with ONNX's reference evaluator.

    What neither runs, for it is of an old opset, is judged by what ONNX converts it to.
    """
    names = json.loads((folder / "inputs.json").read_text())
    with np.load(folder / "inputs.npz") as file:
        feeds = dict(zip(names, file.values(), strict=True))
    with np.load(folder / "outputs.npz") as file:
        got = list(file.values())
    path = folder / "home" / "model.onnx"
    reasons = []
    for oracle in (_onnxruntime, _reference, _newer):
        try:
            want = oracle(path, feeds)
        except Exception as error:
            reasons.append(f"{oracle.__name__[1:]}: {' '.join(str(error).split())[:200]}")
            continue
        difference = _difference(got, want)
        if not difference:
            return {"equal": True}
        reasons.append(f"{oracle.__name__[1:]}: {difference}")
        return {"equal": False, "judged": True, "reason": "; ".join(reasons)}
    return {"equal": False, "judged": False, "reason": "; ".join(reasons)}


def _onnxruntime(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return _run(onnx.load(path), feeds)


def _reference(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(x) for x in ReferenceEvaluator(onnx.load(path)).run(None, feeds)]


def _newer(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    model = onnx.load(path)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= _NEWER_OPSET:
        raise ValueError(f"opset {opset} is not an old one")
    return _run(version_converter.convert_version(model, _NEWER_OPSET), feeds)


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for node in model.graph.node:
        node.ClearField("name")  # Two of one name say the same, and ONNX Runtime refuses them.
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = {value.name for value in session.get_inputs()}
    return list(session.run(None, {k: v for k, v in feeds.items() if k in wanted}))


def _difference(got: list[np.ndarray], want: list[np.ndarray]) -> str:
    if len(got) != len(want):
        return f"{len(got)} outputs instead of {len(want)}"
    pairs = zip(got, want, strict=True)
    return next(filter(None, (compare(a, b, of_largest=_OF_LARGEST) for a, b in pairs)), "")
