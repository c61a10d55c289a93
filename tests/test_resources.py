"""Data folders are found in a checkout and in an installed wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tvmcomp import resources
from tvmcomp.errors import TvmcompError

ROOT = Path(__file__).parents[1]


def test_checkout_folders() -> None:
    assert resources.data_folder("targets") == ROOT / "targets"
    assert resources.data_folder("schedules") == ROOT / "schedules"


def test_missing_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "site" / "tvmcomp")
    with pytest.raises(TvmcompError, match=r"data folder 'targets' is missing .*reinstall tvmcomp"):
        resources.data_folder("targets")


def test_wheel_carries_data_and_works(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", ".gitignore"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "targets", "schedules", "recipes"):
        shutil.copytree(ROOT / name, source / name)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    for name in (
        "py.typed",
        "build/pipeline.py",
        "_data/schedules/README.md",
        "_data/recipes/int8.toml",
    ):
        assert (site / "tvmcomp" / name).is_file()
    # Without what only the compile extra installs, from a folder that is no checkout.
    program = (
        "import sys; sys.modules.update(tvm=None, torch=None, onnx=None, scipy=None)\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        "from tvmcomp.target import Target\n"
        "from tvmcomp.resources import data_folder\n"
        "print(len(Target.names()), data_folder('targets'), Target.load('x86-avx2').mcpu)"
    )
    run = [sys.executable, "-I", "-c", program]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["9", str(site / "tvmcomp/_data/targets"), "x86-64-v3"]
