"""A bundle runs where only Python and numpy are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime import tiny
from tvmcomp.artifact import Payload, write_artifact
from tvmcomp.errors import IncompatibleHostError, TvmcompError, UsageError
from tvmcomp.runtime import bundle

# Runs run.py with the standard library, the bundle and numpy; prints what else got in.
LAUNCH = """
import runpy, sys
script, numpy_home, *sys.argv[1:] = sys.argv[1:]
sys.path.append(numpy_home)
sys.argv[0] = script
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as leaving:
    code = leaving.code
maps = open("/proc/self/maps").read()
from_bundle = script.rsplit("/", 1)[0]
libraries = {line.split()[-1] for line in maps.splitlines() if "libtvm" in line}
print("outside:", [path for path in libraries if not path.startswith(from_bundle)])
print("modules:", sorted({"torch", "tvm", "pydantic"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def numpy_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where numpy, and nothing else, can be imported from."""
    home = tmp_path_factory.mktemp("numpy_home")
    installed = Path(np.__file__).parent
    for name in ("numpy", "numpy.libs"):
        if (installed.parent / name).exists():
            (home / name).symlink_to(installed.parent / name)
    return home


@pytest.fixture(scope="module")
def moved(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is not where it was made."""
    made = tmp_path_factory.mktemp("made") / "bundle"
    assert bundle(tiny_file, made) == made
    place = tmp_path_factory.mktemp("box") / "srv"
    shutil.move(made, place)
    return place


def launch(folder: Path, numpy_home: Path, *args: object) -> subprocess.CompletedProcess[str]:
    script = folder / "run.py"
    command = [sys.executable, "-I", "-S", "-c", LAUNCH, script, numpy_home, *args]
    return subprocess.run(
        list(map(str, command)), env={}, cwd="/", capture_output=True, text=True, check=False
    )


def test_it_runs_on_its_own(moved: Path, numpy_home: Path, tmp_path: Path) -> None:
    done = launch(moved, numpy_home)
    assert done.returncode == 0, done.stderr
    assert "input x: float32 [8, 16]" in done.stdout
    assert "ok: the golden run reproduces" in done.stdout
    given = tiny.inputs(31)
    np.savez(tmp_path / "in.npz", **given)
    done = launch(moved, numpy_home, tmp_path / "in.npz", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["outside: []", "modules: []"]
    with np.load(tmp_path / "out.npz") as outputs:
        for name, want in tiny.expected(**given).items():
            np.testing.assert_array_equal(outputs[name], want)


def test_mistakes_are_one_line(moved: Path, numpy_home: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros(3))
    for args, code, message in (
        (("one",), 2, "usage: run.py"),
        ((tmp_path / "none.npz", tmp_path / "out.npz"), 3, "none.npz: cannot be read"),
        ((tmp_path / "in.npz", tmp_path / "out.npz"), 3, "missing ['k', 'gain']"),
    ):
        done = launch(moved, numpy_home, *args)
        assert done.returncode == code
        assert len(done.stderr.splitlines()) == 1
        assert message in done.stderr
    assert not (tmp_path / "out.npz").exists()


def test_a_damaged_artifact_in_it(moved: Path, numpy_home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(moved, copy)
    artifact = copy / "tiny.tvmcomp"
    artifact.write_bytes(artifact.read_bytes()[:-1])
    done = launch(copy, numpy_home)
    assert done.returncode == 4
    assert "no tvmcomp seal" in done.stderr
    assert "outside: []" in done.stdout


def test_it_is_small_and_licensed(tiny_file: Path, tmp_path: Path) -> None:
    made = bundle(tiny_file, tmp_path / "out")
    sizes = {p.relative_to(made): p.stat().st_size for p in made.rglob("*") if p.is_file()}
    assert sum(sizes.values()) < 16 * 2**20
    assert {"LICENSE"} <= {path.name for path in sizes if path.parts[0] == "licenses"}
    assert not [path for path in sizes if "__pycache__" in path.parts]


def test_an_existing_folder_is_left_alone(tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="out: already exists"):
        bundle(tiny_file, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_a_failed_bundle_leaves_nothing(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(TvmcompError, match=r"out: cannot be written .*No space left"):
        bundle(tiny_file, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_only_for_this_architecture(tiny_payload: Payload, tmp_path: Path) -> None:
    function = tiny_payload.function
    variant = replace(function.variants[0], triple="aarch64-linux-gnu")
    manifest = replace(tiny_payload.manifest, functions=(replace(function, variants=(variant,)),))
    write_artifact(tmp_path / "arm", replace(tiny_payload, manifest=manifest))
    with pytest.raises(IncompatibleHostError, match="compiled for aarch64"):
        bundle(tmp_path / "arm", tmp_path / "out")
    assert not (tmp_path / "out").exists()
