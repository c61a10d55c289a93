"""One network of timm against ONNX Runtime, in a process of its own: `judge`."""

from __future__ import annotations

import logging
import resource
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# All of it is needed by every network: the process that starts the others imports it once.
import numpy as np
import onnx
import onnxruntime
import torch
import tvm  # noqa: F401

import tvmcomp as tc
from acceptance.photos import STATISTICS_SEED, photos
from acceptance.timm_models import timm
from acceptance.zoo.weights import seeded, settled
from tvmcomp.errors import TvmcompError

__all__ = ["LIMIT", "judge"]

LIMIT = 1e-4
_STATISTICS = 8
_MEMORY = 16 << 30


def judge(model: str, answer: Connection) -> None:
    """Send what became of `model`: outcome ("right", "wrong", "refused"), error, seconds, detail."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    seconds: dict[str, float] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            answer.send(_judged(model, Path(folder) / "net.onnx", seconds) | {"seconds": seconds})
    except TvmcompError as error:
        text = " ".join(str(error).split())
        answer.send({"outcome": "refused", "detail": text[:600], "seconds": seconds})
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        answer.send({"outcome": "failed", "detail": text[:600], "seconds": seconds})


def _judged(model: str, path: Path, seconds: dict[str, float]) -> dict[str, Any]:
    clock = _Clock(seconds)
    net = timm.create_model(model, pretrained=False, exportable=True)
    size = net.default_cfg["input_size"][-1]
    settling = torch.from_numpy(photos(_STATISTICS, size, STATISTICS_SEED))
    net = settled(seeded(net), {"x": settling})
    x = photos(1, size, seed=3)
    clock.lap("build")
    torch.onnx.export(
        net, (torch.from_numpy(x),), path, input_names=["x"], dynamo=True, verbose=False
    )
    clock.lap("export")
    want = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    clock.lap("onnxruntime")
    imported = tc.load_model(path)
    clock.lap("import")
    executable = tc.compile(imported)
    clock.lap("compile")
    got = list(executable.run({"x": x}).values())
    clock.lap("run")
    operators = sorted(
        {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}
    )
    error = _distance(got, want)
    found = {"error": error, "operators": operators, "parameters": imported.params_bytes // 4}
    if error <= LIMIT:
        return {"outcome": "right", "detail": "", **found}
    # Where both sides round, neither is the truth: float64 is.
    with torch.inference_mode():
        exact = net.double()(torch.from_numpy(x).double())
    truth = [value.numpy() for value in (exact if isinstance(exact, tuple | list) else [exact])]
    ours, theirs = _distance(got, truth), _distance(want, truth)
    fair = ours <= max(LIMIT, 2 * theirs)
    detail = f"from float64: ours {ours:.2g}, ONNX Runtime {theirs:.2g}"
    return {"outcome": "right" if fair else "wrong", "detail": detail, **found}


def _distance(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    """The worst over the outputs of max|a-b| / max|b|; infinite where shapes or NaN differ."""
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        off = (
            np.abs(a.astype(np.float64) - b).max() / np.abs(b).max()
            if a.shape == b.shape
            else np.inf
        )
        worst = max(worst, float(off) if np.isfinite(off) else float("inf"))
    return worst


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._begun = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] = round(now - self._begun, 2)
        self._begun = now
