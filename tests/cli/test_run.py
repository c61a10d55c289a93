"""`tvmcomp run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import Done
from runtime import tiny

Call = Callable[..., Done]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "in.npz"
    np.savez(path, **tiny.inputs(7))
    return path


def test_outputs_are_the_networks(call: Call, artifact: Path, data: Path) -> None:
    out = data.with_name("out.npz")
    done = call("run", artifact, "--input", data, "--output", out, "--json")
    assert done.code == 0, done.err
    assert done.json["calls"] == 1
    assert done.json["outputs"]["n"] == {"dtype": "int32", "shape": [tiny.ROWS, tiny.LANES]}
    with np.load(out) as outputs:
        for name, expected in tiny.expected(**tiny.inputs(7)).items():
            np.testing.assert_array_equal(outputs[name], expected)


def test_text_names_every_output(call: Call, artifact: Path, data: Path) -> None:
    done = call("run", artifact, "-i", data, "-o", data.with_name("out.npz"))
    assert done.code == 0
    assert done.err == ""
    assert [line.split()[0] for line in done.out.splitlines()] == ["output", "y", "n"]


def test_dry_run_writes_nothing(call: Call, artifact: Path, data: Path) -> None:
    out = data.with_name("out.npz")
    done = call("run", artifact, "-i", data, "-o", out, "--dry-run", "--json")
    assert done.json["calls"] == 1
    assert not out.exists()


def test_dry_run_still_checks_the_data(call: Call, artifact: Path, data: Path) -> None:
    np.savez(data, x=np.zeros(3, np.float32))
    done = call("run", artifact, "-i", data, "-o", data.with_name("out.npz"), "--dry-run")
    assert "missing ['k', 'gain']" in done.failed(3)


def test_bad_input_leaves_the_old_output(call: Call, artifact: Path, data: Path) -> None:
    out = data.with_name("out.npz")
    out.write_bytes(b"old")
    wrong = {**tiny.inputs(0), "k": tiny.inputs(0)["k"].astype(np.float64)}
    np.savez(data, **wrong)
    assert "'k'" in call("run", artifact, "-i", data, "-o", out).failed(3)
    assert out.read_bytes() == b"old"


def test_damaged_artifact(call: Call, damaged: Path, data: Path) -> None:
    out = data.with_name("out.npz")
    assert "damaged" in call("run", damaged, "-i", data, "-o", out).failed(4)
    assert not out.exists()


def test_output_that_cannot_be_written(call: Call, artifact: Path, data: Path) -> None:
    nowhere = data.parent / "none" / "out.npz"
    assert "does not exist" in call("run", artifact, "-i", data, "-o", nowhere).failed(2)
    assert "is a folder" in call("run", artifact, "-i", data, "-o", data.parent).failed(2)


def test_no_input_is_overwritten(call: Call, artifact: Path, data: Path) -> None:
    before = data.read_bytes(), artifact.read_bytes()
    for path in (data, artifact):
        assert "is named twice" in call("run", artifact, "-i", data, "-o", path).failed(2)
    assert (data.read_bytes(), artifact.read_bytes()) == before


def test_missing_input_knows_its_neighbour(call: Call, artifact: Path, data: Path) -> None:
    done = call("run", artifact, "-i", data.with_name("im.npz"), "-o", data.with_name("o.npz"))
    assert "no such file" in done.failed(3)
    assert f"hint: did you mean {data}?" in done.err
