"""`tvmcomp verify`: 0 for what is whole, 4 for any mismatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cli.conftest import Done
from runtime import tiny
from tvmcomp.artifact import write_artifact

Call = Callable[..., Done]


def test_a_whole_artifact(call: Call, artifact: Path) -> None:
    done = call("verify", artifact, "--json")
    assert done.code == 0
    assert done.json["verified"] is True
    assert done.json["bytes"] == artifact.stat().st_size
    assert {"lib.so", "weights.bin", "manifest.json"} <= set(done.json["entries"])
    assert call("verify", artifact).out.startswith("verified  ")


def test_one_flipped_bit(call: Call, damaged: Path) -> None:
    assert str(damaged) in call("verify", damaged).failed(4)
    done = call("verify", damaged, "--json")
    assert done.json["error"]["exit_code"] == 4


def test_something_else(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "a.tvmcomp"
    path.write_bytes(b"x" * 4096)
    assert "not an artifact" in call("verify", path).failed(4)
    assert "no such file" in call("verify", tmp_path / "zzz").failed(3)
    assert "Is a directory" in call("verify", tmp_path).failed(3)


def test_golden_run_that_does_not_repeat(call: Call, tmp_path: Path) -> None:
    payload = tiny.payload()
    wrong = {**payload.golden_outputs, "n": payload.golden_outputs["n"] + np.int32(1)}
    write_artifact(tmp_path / "a.tvmcomp", replace(payload, golden_outputs=wrong))
    assert "'n'" in call("verify", tmp_path / "a.tvmcomp").failed(4)


def test_another_machines_artifact(call: Call, tmp_path: Path) -> None:
    payload = tiny.payload()
    function = payload.function
    variant = replace(function.variants[0], required_features=("avx512teleport",))
    manifest = replace(payload.manifest, functions=(replace(function, variants=(variant,)),))
    write_artifact(tmp_path / "a.tvmcomp", replace(payload, manifest=manifest))
    assert "avx512teleport" in call("verify", tmp_path / "a.tvmcomp").failed(5)
