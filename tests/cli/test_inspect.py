"""`tvmcomp inspect`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cli.conftest import Done
from runtime import tiny
from tvmcomp.artifact import Manifest, read_artifact, write_artifact

Call = Callable[..., Done]


def test_manifest_as_json(call: Call, artifact: Path) -> None:
    done = call("inspect", artifact, "--json")
    assert Manifest.from_json(done.json["manifest"]) == read_artifact(artifact).manifest
    assert "kernels" not in done.json


def test_text_names_inputs_and_origin(call: Call, artifact: Path) -> None:
    lines = call("inspect", artifact).out.splitlines()
    assert "input         x: float32 [8, 16]" in lines
    assert "output        n: int32 [8, 16]" in lines
    assert "source        onnx: tiny" in lines
    assert "recipe        float32" in lines


def test_kernels_have_times_that_share_the_whole(call: Call, artifact: Path) -> None:
    rows = call("inspect", artifact, "--kernels", "--json").json["kernels"]
    assert [row["layer"] for row in rows] == ["enter", "middle", "leave"]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert all(0 < row["median_ms"] < 10 for row in rows)
    table = call("inspect", artifact, "--kernels").out.splitlines()[-3:]
    assert [line.split()[2] for line in table] == ["enter", "middle", "leave"]


def test_kernels_of_another_machine_are_listed_without_times(call: Call, tmp_path: Path) -> None:
    payload = tiny.payload()
    function = payload.function
    variant = replace(function.variants[0], required_features=("avx512teleport",))
    manifest = replace(payload.manifest, functions=(replace(function, variants=(variant,)),))
    path = tmp_path / "a.tvmcomp"
    write_artifact(path, replace(payload, manifest=manifest))
    done = call("inspect", path, "--kernels", "--json")
    assert done.code == 0
    assert [row["median_ms"] for row in done.json["kernels"]] == [None] * 3
    assert "avx512teleport" in done.json["not_timed"]
    assert "not timed: " in call("inspect", path, "--kernels").out


def test_measurements_are_shown(call: Call, tmp_path: Path) -> None:
    spread = {"median_ms": 1.25, "p10_ms": 1.0, "p90_ms": 2.0}
    peer = {"name": "torch", "precision": "float32", "median_ms": None, "reason": "is not there"}
    measurements = {
        "latency_threads_1": spread,
        "accuracy": {"value": 0.98765, "metric": "top1", "samples": 540},
        "bench": {"subject": {"name": "tvmcomp", "precision": "int8", **spread}, "peers": [peer]},
        "note": {"a": 1, "b": 2},
    }
    path = tmp_path / "a.tvmcomp"
    write_artifact(path, replace(tiny.payload(), measurements=measurements))
    lines = [line.split(maxsplit=1) for line in call("inspect", path).out.splitlines()]
    shown = "1.2500 ms (p10 1.0000, p90 2.0000)"
    assert [line for line in lines if line[0] in measurements] == [
        ["accuracy", "0.9877 top1 of 540 samples"],
        ["bench", f"tvmcomp int8 {shown}"],
        ["bench", "torch float32 not timed: is not there"],
        ["latency_threads_1", shown],
        ["note", "2 entries; --json prints them"],
    ]
    assert call("inspect", path, "--json").json["measurements"] == measurements


def test_damaged(call: Call, damaged: Path) -> None:
    assert "damaged" in call("inspect", damaged).failed(4)
