"""`tvmcomp targets`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cli.conftest import Done
from tvmcomp.resources import data_folder
from tvmcomp.target import Target, detect

Call = Callable[..., Done]


def test_list_has_every_descriptor(call: Call) -> None:
    rows = call("targets", "list", "--json").json["targets"]
    assert [row["name"] for row in rows] == list(Target.names())
    for row in rows:
        assert row["available"] == (row["unavailable"] is None)
    lines = call("targets", "list").out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(Target.names())


def test_detect_names_this_machine_and_why(call: Call) -> None:
    done = call("targets", "detect", "--json")
    assert done.json["target"] == detect().target.name
    assert done.json["flags_that_decided"] == list(detect().flags_that_decided)
    assert f"target       {detect().target.name}" in call("targets", "detect").out


def test_show_is_the_descriptor(call: Call) -> None:
    target = Target.load("x86-avx2")
    data = call("targets", "show", "x86-avx2", "--json").json
    assert data["features"] == sorted(target.features)
    assert set(data["schemes"]) == set(target.schemes)
    first = data["schemes"]["conv2d"][0]
    assert first["activation"]["dtype"] == target.scheme_for("conv2d").activation.dtype
    assert "x86-avx2: " in call("targets", "show", "x86-avx2").out


def test_show_takes_a_file_of_ones_own(call: Call, tmp_path: Path) -> None:
    text = (data_folder("targets") / "x86-avx2.toml").read_text().replace("x86-avx2", "my-box")
    (tmp_path / "my-box.toml").write_text(text)
    assert call("targets", "show", tmp_path / "my-box.toml", "--json").json["name"] == "my-box"


def test_unknown_target_has_a_suggestion(call: Call) -> None:
    assert "did you mean 'x86-avx2'?" in call("targets", "show", "x86-avx").failed(3)
