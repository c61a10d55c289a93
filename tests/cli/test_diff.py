"""`tvmcomp diff` from files to verdict, screen and exit code, on a small network of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tvmcomp as tc
from cli.conftest import Done
from runtime import tiny
from tvmcomp.artifact import read_artifact, write_artifact

Call = Callable[..., Done]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.pt2, float.tvmcomp, int8.tvmcomp, two samples; faulty.tvmcomp is int8 with a wrong dense layer,
    other.tvmcomp int8 calibrated on other samples."""
    folder = tmp_path_factory.mktemp("diff")
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )
    images = np.random.default_rng(2).standard_normal((10, 3, 4, 4)).astype(np.float32)
    program = torch.export.export(net.eval(), (torch.from_numpy(images[:1]),))
    torch.export.save(program, folder / "net.pt2")
    np.savez(folder / "in.npz", input=images[8:])
    np.savez(folder / "wide.npz", input=np.zeros((2, 3, 9, 9), np.float32))
    model = tc.load_model(folder / "net.pt2")
    tc.compile(model).save(folder / "float.tvmcomp")
    compressed = tc.compress(model, "int8", images[:8])
    tc.compile(compressed).save(folder / "int8.tvmcomp")
    tc.compile(tc.compress(model, "int8", images[:2])).save(folder / "other.tvmcomp")
    payload = read_artifact(folder / "int8.tvmcomp")
    weights = np.array(payload.weights)
    begin = int(str(_last(folder)["constants_offset"]))
    weights[begin : begin + 1024] ^= 0x40
    write_artifact(folder / "faulty.tvmcomp", replace(payload, weights=weights))
    (folder / "folder.onnx").mkdir()
    return folder


def _last(folder: Path) -> dict[str, object]:
    """The manifest's row of the last layer with constants."""
    rows = read_artifact(folder / "int8.tvmcomp").function.variants[0].kernels
    return dict([row for row in rows if row["constants_offset"] is not None][-1])


@pytest.mark.parametrize(
    ("ours", "theirs", "against"),
    [
        ("float.tvmcomp", "net.pt2", "layer by layer as defined"),
        ("int8.tvmcomp", "net.pt2", "in float32, and as int8 makes it"),
        ("int8.tvmcomp", "float.tvmcomp", "float.tvmcomp"),
        ("other.tvmcomp", "int8.tvmcomp", "int8.tvmcomp"),
    ],
)
def test_sound_networks_do_not_depart(
    call: Call, folder: Path, ours: str, theirs: str, against: str
) -> None:
    done = call("diff", folder / ours, folder / theirs, "--input", folder / "in.npz", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json["first"] is None
    assert done.json["samples"] == 2
    assert done.json["against"].endswith(against)
    # Floats have no copy of it.
    assert set(done.json["unmatched"]) <= ({"reshape_1.q"} if theirs == "float.tvmcomp" else set())
    totals = [row["total_sqnr_db"] for row in done.json["layers"]]
    totals = [total for total in totals if total is not None]  # None: nothing differs
    assert len(totals) >= 3
    # What builds up along the network.
    assert ours == "float.tvmcomp" or all(20 < total < 60 for total in totals)


@pytest.mark.parametrize("other", ["net.pt2", "int8.tvmcomp"])
def test_wrong_constants_are_named_with_their_layer(call: Call, folder: Path, other: str) -> None:
    layer = _last(folder)["layer"]
    command = ("diff", folder / "faulty.tvmcomp", folder / other, "--input", folder / "in.npz")
    done = call(*command)
    assert done.failed(4).endswith(f"departs from {folder / other} at {layer} (IntConv)")
    last = done.out.splitlines()[-1]
    assert last.startswith(f"first departs: {layer} (IntConv): adds ")
    assert last.endswith(" of the largest value, 0.0001 allowed")
    assert "departs: adds" in done.out
    assert other == "net.pt2" or call(*command, "--tolerance", 1e39).code == 0


def test_json_of_a_departure(call: Call, folder: Path) -> None:
    done = call(
        "diff",
        folder / "faulty.tvmcomp",
        folder / "int8.tvmcomp",
        "-i",
        folder / "in.npz",
        "--json",
    )
    assert done.code == 4
    first = done.json["first"]
    assert first["layer"] == _last(folder)["layer"]
    assert first["mode"] == "float"
    assert first["own"] > 1e-4
    departed = [row["layer"] for row in done.json["layers"] if row["departs"]]
    assert departed == [first["layer"]]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("float.tvmcomp", "none.onnx", "in.npz"), 3, "no such file"),
        (("float.tvmcomp", "net.pt2", "none.npz"), 3, "no such file"),
        (("float.tvmcomp", "in.npz", "in.npz"), 3, "neither an artifact nor a model; give a"),
        (("net.pt2", "float.tvmcomp", "in.npz"), 2, "name the artifact first: "),
        (("float.tvmcomp", "folder.onnx", "in.npz"), 3, "cannot be read (Is a directory)"),
        (("float.tvmcomp", "net.pt2", "wide.npz"), 3, "[1, 3, 4, 4]"),
        (("float.tvmcomp", "tiny.tvmcomp", "in.npz"), 3, "compare networks of the same inputs"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    call: Call, folder: Path, artifact: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ours, theirs, data = (
        artifact if name == "tiny.tvmcomp" else folder / name for name in arguments
    )
    assert words in call("diff", ours, theirs, "--input", data).failed(code)


def test_an_artifact_that_does_not_tell_its_tensors(
    call: Call, artifact: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "in.npz", **tiny.inputs(0))
    done = call("diff", artifact, artifact, "--input", tmp_path / "in.npz")
    assert "compile the model again" in done.failed(4)
