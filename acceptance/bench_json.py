"""`tvmcomp bench resnet50.tvmcomp --against onnxruntime,openvino,torch --threads 1 --json`, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from acceptance.apart import environment
from acceptance.context import Context
from acceptance.row import Check, Row, figure, holds

__all__ = ["ROW", "faults"]

_PEERS = ("onnxruntime", "openvino", "torch")
_TIMES = ("median_ms", "p10_ms", "p90_ms")


def faults(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with the JSON of `bench`, schema 1."""
    found = []
    if data.get("schema") != 1:
        found.append(f"schema {data.get('schema')!r}")
    for key in ("subject", "peers", "threads", "device", "versions", "input"):
        if key not in data:
            found.append(f"no {key}")
    entries = [data.get("subject") or {}, *data.get("peers", [])]
    for entry in entries:
        name = f"{entry.get('name')} {entry.get('precision')}"
        if entry.get("reason"):
            continue
        p10, median, p90 = (entry.get(key) for key in ("p10_ms", "median_ms", "p90_ms"))
        if not all(isinstance(value, int | float) for value in (p10, median, p90)):
            found.append(f"{name} lacks a time")
        elif not 0 < p10 <= median <= p90:
            found.append(f"{name}: p10 {p10}, median {median}, p90 {p90}")
        if not entry.get("repeats"):
            found.append(f"{name} has no repeats")
    ours = (data.get("subject") or {}).get("median_ms")
    for peer in data.get("peers", []):
        ratio = peer.get("ratio")
        if (
            not peer.get("reason")
            and ours
            and abs((ratio or 0) * ours / peer["median_ms"] - 1) > 1e-6
        ):
            found.append(f"{peer['name']} {peer['precision']}: ratio {ratio} is not peer / ours")
    measured = {peer.get("name") for peer in data.get("peers", []) if not peer.get("reason")}
    found += [f"no {name} was measured" for name in _PEERS if name not in measured]
    if data.get("threads") != 1:
        found.append(f"threads {data.get('threads')!r}")
    return found


def _run(context: Context) -> Iterator[Check]:
    artifact = context.compiled(context.net("resnet50"), "torch", "int8").path
    command = ["bench", str(artifact), "--against", ",".join(_PEERS), "--threads", "1", "--json"]
    with context.stage("tvmcomp bench"):
        done = subprocess.run(
            [sys.executable, "-m", "tvmcomp", *command],
            env=environment(), capture_output=True, text=True, timeout=3000,
        )  # fmt: skip
    yield holds(
        "exit 0", done.returncode == 0, f"exit {done.returncode}: {done.stderr.strip()[-500:]}"
    )
    try:
        data = json.loads(done.stdout)
    except ValueError as error:
        yield holds("stdout is one JSON object", False, f"{error}: {done.stdout[:200]!r}")
        return
    yield holds("stdout is one JSON object", isinstance(data, dict))
    (context.folder / "bench.json").write_text(done.stdout)
    wrong = faults(data)
    yield holds("medians, spread and ratios are there and agree", not wrong, "; ".join(wrong))
    for entry in (data["subject"], *data["peers"]):
        ratio = f", {entry['ratio']:.2f}x ours" if entry.get("ratio") else ""
        spread = ", ".join(
            f"{key} {entry[key]:.3f}" for key in _TIMES if entry.get(key) is not None
        )
        yield figure(
            f"{entry['name']} {entry['precision']}: median ms",
            entry["median_ms"],
            entry["reason"] or spread + ratio,
        )


ROW = Row(
    "bench",
    "tvmcomp bench --against onnxruntime,openvino,torch --threads 1 --json: valid JSON with medians, spread, ratios",
    _run,
)
