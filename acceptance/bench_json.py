"""`tvmcomp bench resnet50.tvmcomp --against onnxruntime,openvino,torch --threads 1 --json`, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from acceptance.apart import environment
from acceptance.context import Context
from acceptance.row import Check, Row, figure, holds

__all__ = ["ROW", "faults"]

# What each peer must have been measured in; more is welcome.
_PEERS = {
    "onnxruntime": {"float32", "int8"},
    "openvino": {"float32", "int8"},
    "torch": {"float32"},
}
_TIMES = ("median_ms", "p10_ms", "p90_ms")


def faults(data: Mapping[str, Any], peers: Sequence[str] = tuple(_PEERS)) -> list[str]:
    """What is wrong with the JSON of `bench --against PEERS`, schema 1."""
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
    reasons = {
        (entry.get("name"), entry.get("precision")): entry.get("reason")
        for entry in data.get("peers", [])
    }
    for name in peers:
        for precision in sorted(_PEERS[name]):
            reason = reasons.get((name, precision), "not there")
            if reason:
                found.append(f"{name} {precision} was not measured: {reason}")
    if data.get("threads") != 1:
        found.append(f"threads {data.get('threads')!r}")
    return found


def _bench(context: Context, artifact: Path, peers: Sequence[str]) -> Iterator[Check]:
    command = ["bench", str(artifact), "--against", ",".join(peers), "--threads", "1", "--json"]
    with context.stage(f"tvmcomp bench {artifact.name}"):
        done = subprocess.run(
            [sys.executable, "-m", "tvmcomp", *command],
            env=environment(), capture_output=True, text=True, timeout=3000,
        )  # fmt: skip
    name = artifact.stem
    said = f"exit {done.returncode}: {done.stderr.strip()[-500:]}"
    yield holds(f"{name}: exit 0", done.returncode == 0, said)
    try:
        data = json.loads(done.stdout)
    except ValueError as error:
        yield holds(f"{name}: stdout is JSON", False, f"{error}: {done.stdout[:200]!r}")
        return
    (context.folder / f"bench-{name}.json").write_text(done.stdout)
    wrong = faults(data, peers)
    what = f"{name}: medians, spread and ratios are there and agree"
    yield holds(what, not wrong, "; ".join(wrong))
    for entry in (data["subject"], *data["peers"]):
        times = ", ".join(f"{key} {entry[key]:.3f}" for key in _TIMES if entry.get(key) is not None)
        ratio = f", {entry['ratio']:.2f}x ours" if entry.get("ratio") else ""
        yield figure(
            f"{name}, {entry['name']} {entry['precision']}: median ms",
            entry["median_ms"],
            entry["reason"] or times + ratio,
        )


def _run(context: Context) -> Iterator[Check]:
    resnet50, resnet18 = context.net("resnet50"), context.net("resnet18")
    yield from _bench(context, context.compiled(resnet50, "torch", "int8").path, tuple(_PEERS))
    # PyTorch cannot run an ONNX file, whose weights lie in a file of their own here.
    peers = ("onnxruntime", "openvino")
    yield from _bench(context, context.compiled(resnet18, "onnx", "int8").path, peers)


ROW = Row(
    "bench",
    "tvmcomp bench --against onnxruntime,openvino,torch --threads 1 --json: valid JSON with medians, spread, ratios",
    _run,
)
