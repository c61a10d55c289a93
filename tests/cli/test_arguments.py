"""Parsing that several verbs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmcomp.cli.arguments import check_output, existing, parse_shapes, refuse_same
from tvmcomp.errors import DataError, UsageError


def test_shapes() -> None:
    assert parse_shapes(["x=1,3,224,224", "in=put:0=7"]) == {
        "x": (1, 3, 224, 224),
        "in=put:0": (7,),
    }
    assert parse_shapes(None) == {}


@pytest.mark.parametrize("text", ["x", "x=", "=1,2", "x=1,,2", "x=1,a", "x=0,3", "x=-1", "x=1;2"])
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="write it like x=1,3,224,224"):
        parse_shapes([text])


def test_one_input_has_one_shape() -> None:
    with pytest.raises(UsageError, match="names 'x' twice"):
        parse_shapes(["x=1", "x=2"])


def test_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "resnet50.onnx").touch()
    assert existing(tmp_path / "resnet50.onnx") == tmp_path / "resnet50.onnx"
    with pytest.raises(DataError, match="no such file") as caught:
        existing(tmp_path / "resnet5.onnx")
    assert caught.value.__notes__ == [f"did you mean {tmp_path / 'resnet50.onnx'}?"]
    with pytest.raises(DataError) as caught:
        existing(tmp_path / "nowhere" / "a.onnx")
    assert not hasattr(caught.value, "__notes__")


def test_output_has_to_be_a_file_in_a_folder(tmp_path: Path) -> None:
    check_output(tmp_path / "new")
    with pytest.raises(UsageError, match="is a folder"):
        check_output(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        check_output(tmp_path / "a" / "b")


def test_one_file_has_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.npz").touch()
    Path("link").symlink_to("a.npz")
    refuse_same(Path("a.npz"), None, Path("b.npz"), Path("/dev/null"), Path("/dev/null"))
    for other in (Path("a.npz"), tmp_path / "a.npz", Path("link")):
        with pytest.raises(UsageError, match="is named twice; give each file a name"):
            refuse_same(Path("a.npz"), other)
