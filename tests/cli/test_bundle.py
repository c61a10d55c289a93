"""`tvmcomp bundle`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cli.conftest import Done

Call = Callable[..., Done]


def test_folder_runs_on_its_own(call: Call, artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "box"
    done = call("bundle", artifact, "-o", folder, "--json")
    assert done.code == 0, done.err
    assert done.json["folder"] == str(folder)
    assert done.json["bytes"] == sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    ran = subprocess.run(
        [sys.executable, folder / "run.py"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "ok: the golden run reproduces" in ran.stdout


def test_existing_folder_is_left_alone(call: Call, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("mine")
    assert "already exists" in call("bundle", artifact, "-o", tmp_path).failed(2)
    assert (tmp_path / "keep").read_text() == "mine"


def test_dry_run_writes_nothing(call: Call, artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "box"
    done = call("bundle", artifact, "-o", folder, "--dry-run", "--json")
    assert (done.code, done.json["folder"]) == (0, None)
    assert not folder.exists()
    assert "already exists" in call("bundle", artifact, "-o", tmp_path, "--dry-run").failed(2)


def test_damaged_artifact_makes_no_folder(call: Call, damaged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "box"
    assert "damaged" in call("bundle", damaged, "-o", folder).failed(4)
    assert "damaged" in call("bundle", damaged, "-o", folder, "--dry-run").failed(4)
    assert not folder.exists()
