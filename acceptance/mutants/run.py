"""Tries mutants, each in a child of a server that has everything imported; survives whatever happens to them."""

from __future__ import annotations

import json
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import onnx

from acceptance.fork_server import fork_server
from acceptance.mutants.data import DATA, FILES
from acceptance.mutants.graphs import GRAPHS
from acceptance.mutants.hungry import HUNGRY
from acceptance.mutants.outcome import Outcome, Result, limit, names_a_fix, names_a_place
from acceptance.mutants.sound import save

__all__ = ["CLASSES", "try_mutants", "write"]

_SECONDS = 150.0

CLASSES: tuple[str, ...] = (*GRAPHS, *DATA, *HUNGRY, *FILES)


def write(kind: str, seed: int, folder: Path) -> Path:
    """The model file of one mutant; the same for the same class and seed."""
    rng = Random(f"{kind} {seed}")
    if kind in FILES:
        return FILES[kind](rng, folder)
    make = {**GRAPHS, **DATA, **HUNGRY}[kind]
    path = folder / "model.onnx"
    path.write_bytes(save(make(rng)))
    return path


def try_mutants(mutants: Sequence[tuple[str, int]], children: int = 2) -> Iterator[Result]:
    """The result of each (class, seed)."""
    context = fork_server(["acceptance.mutants.trial"])
    with ThreadPoolExecutor(children) as pool:
        yield from pool.map(partial(_try, context), mutants)


def _try(context: Any, mutant: tuple[str, int]) -> Result:
    kind, seed = mutant
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "home").mkdir()
        path = write(kind, seed, folder / "home")
        outcome, message = _outcome(context, folder)
        place = fix = True
        if outcome in (Outcome.REFUSED, Outcome.LIMIT):
            place, fix = names_a_place(message, _names(path)), names_a_fix(message)
    return Result(kind, seed, outcome, message, place, fix, round(time.monotonic() - begun, 2))


def _outcome(context: Any, folder: Path) -> tuple[Outcome, str]:
    result = _child(context, folder, "ours")
    if isinstance(result, Outcome):
        return result, _printed(folder)
    message = str(result.get("message", ""))
    if _printed(folder) or "\n" in str(result.get("raw", "")).strip():
        return Outcome.NOISE, f"{_printed(folder)[:300]} {message}"
    if result["exit"] == 3:
        return (Outcome.LIMIT if limit(message) else Outcome.REFUSED), message
    if result["exit"] == 5 and "memory" in message:
        return Outcome.OUT_OF_MEMORY, message
    if result["exit"]:
        return Outcome.BUG, message
    (folder / "inputs.json").write_text(json.dumps(result["inputs"]))
    judged = _child(context, folder, "judge")
    if isinstance(judged, Outcome):
        return Outcome.UNJUDGED, f"the peer: {judged.value}"
    if judged["equal"]:
        return Outcome.EQUAL, ""
    return (Outcome.WRONG if judged["judged"] else Outcome.UNJUDGED), judged["reason"]


def _child(context: Any, folder: Path, work: str) -> dict[str, Any] | Outcome:
    (folder / "result.json").unlink(missing_ok=True)
    process = context.Process(target=_work, args=(folder, work))
    process.start()
    process.join(_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return Outcome.TIME
    code = process.exitcode or 0
    if code == -signal.SIGXCPU or code == -signal.SIGKILL:
        return Outcome.TIME
    if code < 0:
        with (folder / "output.txt").open("a") as file:
            file.write(f" {signal.Signals(-code).name}")
        return Outcome.SIGNAL
    path = folder / "result.json"
    if not path.exists():
        return Outcome.BUG
    answer: dict[str, Any] = json.loads(path.read_text())
    return answer


def _work(folder: Path, work: str) -> None:
    from acceptance.mutants import trial

    chosen: Callable[[Path], dict[str, Any]] = getattr(trial, work)
    trial.limited(folder, chosen)


def _printed(folder: Path) -> str:
    path = folder / "output.txt"
    return " ".join(path.read_text(errors="replace").split()) if path.exists() else ""


def _names(path: Path) -> list[str]:
    """Names in the model that an error may point to, as a message shows them; the file's is always one."""
    names = [path.name]
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception:
        return names
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for node in graph.node:
            names += [node.name, *node.input, *node.output]
            graphs += [a.g for a in node.attribute if a.HasField("g")]
        names.append(graph.name)
        names += [v.name for v in (*graph.input, *graph.output, *graph.initializer)]
    names += [function.name for function in model.functions]
    texts = [name if isinstance(name, str) else name.decode(errors="replace") for name in names]
    return [re.sub(r"\s+", " ", text)[:40] for text in texts if text.strip()]
