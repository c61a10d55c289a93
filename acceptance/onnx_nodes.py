"""The ONNX backend node tests: none wrong, few refused, each refusal with its operator."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from acceptance.context import Context
from acceptance.fork_server import fork_server
from acceptance.onnx_cases import Case, load_cases
from acceptance.row import Check, Row, at_least, at_most, figure

__all__ = ["ROW", "run_cases"]

_CHILDREN = 2
_CASE_SECONDS = 120.0
_REFUSED_SHARE = 0.15


class _Child:
    """A process that judges one case at a time; its death is the case's result."""

    def __init__(self, function: str, seconds: float) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._function = function
        self._seconds = seconds
        self._start()
        self.case = ""
        self.begun = 0.0

    def _start(self) -> None:
        self.connection, end = multiprocessing.Pipe()
        self._process = self._context.Process(target=_call, args=(self._function, end), daemon=True)
        self._process.start()
        end.close()

    def give(self, case: str) -> None:
        self.case, self.begun = case, time.monotonic()
        self.connection.send(case)

    def result(self) -> dict[str, Any]:
        """What the child sent, or how it died."""
        try:
            answer: dict[str, Any] = self.connection.recv()
            return answer
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit {code}"
            return self._lost(f"its process ended by {how}")

    def late(self) -> dict[str, Any]:
        """Give the case up."""
        self._process.kill()
        self._process.join()
        return self._lost(f"took more than {self._seconds:g} s")

    def _lost(self, reason: str) -> dict[str, Any]:
        self.connection.close()
        self._start()
        seconds = round(time.monotonic() - self.begun, 3)
        return {"case": self.case, "verdict": "failed", "reason": reason, "seconds": seconds}

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _call(function: str, connection: Connection) -> None:
    import importlib

    module, _, name = function.partition(":")
    getattr(importlib.import_module(module), name)(connection)


def run_cases(
    names: Sequence[str],
    function: str = "acceptance.onnx_case:serve",
    *,
    preload: Sequence[str] = ("acceptance.onnx_preload",),
    seconds: float = _CASE_SECONDS,
) -> Iterator[dict[str, Any]]:
    """The result of every case, as they come; a crash or a hang is a result.

    `function` ("module:name") serves a connection in a child; `preload` are modules of imports and test
    data, loaded once in the server the children are forked from.
    """
    fork_server(preload)
    waiting = list(names)[::-1]
    idle = [_Child(function, seconds) for _ in range(min(_CHILDREN, len(waiting)))]
    pool = list(idle)
    busy: list[_Child] = []
    try:
        while waiting or busy:
            while waiting and idle:
                child = idle.pop()
                child.give(waiting.pop())
                busy.append(child)
            ready = wait([child.connection for child in busy], timeout=1.0)
            for child in list(busy):
                if child.connection in ready:
                    result = child.result()
                elif time.monotonic() - child.begun > seconds:
                    result = child.late()
                else:
                    continue
                busy.remove(child)
                idle.append(child)
                yield result
    finally:
        for child in pool:
            child.close()


def _run(context: Context) -> Iterator[Check]:
    cases, left_out = load_cases()
    names = list(cases)[:: max(1, len(cases) // context.scaled(len(cases)))]
    with context.stage("node tests"):
        results = [_with_operator(result, cases) for result in run_cases(names)]
    results.sort(key=lambda result: names.index(result["case"]))
    report = {
        "cases": len(names),
        "left_out": dict(left_out),
        "counts": dict(Counter(result["verdict"] for result in results)),
        "oracles": dict(Counter(result["oracle"] for result in results if result["oracle"])),
        "results": results,
    }
    _write(context.folder, report)
    yield from _checks(results, left_out)


def _with_operator(result: dict[str, Any], cases: Mapping[str, Case]) -> dict[str, Any]:
    return {"operator": cases[result["case"]].operator, "oracle": "", **result}


def _checks(results: Sequence[Mapping[str, Any]], left_out: Mapping[str, int]) -> Iterator[Check]:
    by: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        by[result["verdict"]].append(result)
    yield figure("cases", len(results), f"left out: {sum(left_out.values())} ({_list(left_out)})")
    yield at_least("right", len(by["right"]), 1)
    yield at_most("wrong", len(by["wrong"]), 0, _named(by["wrong"]))
    yield at_most("crashed, hung or another error", len(by["failed"]), 0, _named(by["failed"]))
    operators = Counter(result["operator"] for result in by["refused"])
    share = len(by["refused"]) / max(1, len(results))
    yield at_most("refused, share", share, _REFUSED_SHARE, _list(dict(operators.most_common())))


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _named(results: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{result['case']}: {result['reason']}" for result in results)[:1500]


def _write(folder: Path, report: Mapping[str, Any]) -> None:
    (folder / "onnx_nodes.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = ["# ONNX node tests", "", f"{report['cases']} cases: {_list(report['counts'])}.", ""]
    lines += [f"Judged by: {_list(report['oracles'])}.", "", "Left out:", ""]
    lines += [f"- {count}: {reason}" for reason, count in report["left_out"].items()]
    lines += ["", "| case | operator | verdict | reason |", "|---|---|---|---|"]
    for result in report["results"]:
        if result["verdict"] != "right":
            reason = result["reason"].replace("|", "\\|")
            lines.append(
                f"| {result['case']} | {result['operator']} | {result['verdict']} | {reason} |"
            )
    (folder / "onnx_nodes.md").write_text("\n".join(lines) + "\n")


ROW = Row("onnx-nodes", "ONNX node tests: 0 wrong, at most 15 % refused, each with its operator", _run)  # fmt: skip
