from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from frontend.graphs import conv_net
from tvmcomp.errors import ModelError
from tvmcomp.frontend import from_onnx, load_model, onnx_files

WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)


def save(folder: Path, location: str, **entries: str) -> Path:
    """conv_net with its weight in the external file `location`."""
    proto = conv_net()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder; the same weights also lie outside of it."""
    inside = tmp_path / "model"
    (inside / "data").mkdir(parents=True)
    (inside / "data" / "w.bin").write_bytes(b"head" + WEIGHT.tobytes())
    (tmp_path / "outside.bin").write_bytes(b"head" + WEIGHT.tobytes())
    return inside


@pytest.mark.parametrize("entries", [{"offset": "4"}, {"offset": "4", "length": "432"}])
def test_reads_beside_the_model(folder, entries):
    model = from_onnx(save(folder, "data/w.bin", **entries))
    np.testing.assert_array_equal(model.params["conv.weight"], WEIGHT)


def test_what_pytorch_and_onnx_save_is_read(folder):
    path = folder / "saved.onnx"
    onnx.save_model(conv_net(), path, save_as_external_data=True, location="w", size_threshold=0)
    assert (folder / "w").exists()
    expected = from_onnx(conv_net())
    for name, array in load_model(path).params.items():
        np.testing.assert_array_equal(array, expected.params[name])


def link(make: Callable[[Path, Path], None]) -> Callable[[Path], str]:
    def prepare(folder: Path) -> str:
        make(folder.parent / "outside.bin", folder / "linked.bin")
        return "linked.bin"

    return prepare


def linked_folder(folder: Path) -> str:
    (folder / "up").symlink_to(folder.parent)
    return "up/outside.bin"


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return "pipe"


OUTSIDE: dict[str, tuple[Callable[[Path], str], str]] = {
    "parent": (lambda folder: "../outside.bin", "outside the model's folder"),
    "parent from below": (lambda folder: "data/../../outside.bin", "outside the model's folder"),
    "absolute": (lambda folder: str(folder.parent / "outside.bin"), "outside the model's folder"),
    "windows": (lambda folder: "..\\outside.bin", "outside the model's folder"),
    "no name": (lambda folder: "", "outside the model's folder"),
    "null byte": (lambda folder: "w.bin\0", "outside the model's folder"),
    "symbolic link": (link(lambda target, at: at.symlink_to(target)), "is a link"),
    "hard link": (link(lambda target, at: at.hardlink_to(target)), "hard link"),
    "linked folder": (linked_folder, "is a link"),
    "pipe": (pipe, "no regular file"),
    "folder": (lambda folder: "data", "no regular file"),
    "missing": (lambda folder: "nothing.bin", "is missing; copy it beside the model"),
    "missing folder": (lambda folder: "nowhere/w.bin", "is missing"),
    "below a file": (lambda folder: "data/w.bin/x", "cannot be opened"),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_nothing_outside_the_folder_is_read(folder, case):
    prepare, message = OUTSIDE[case]
    path = save(folder, prepare(folder), offset="4")
    with pytest.raises(ModelError, match=message) as caught:
        from_onnx(path)
    assert "conv.weight" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "-4"}, "at offset -4"),
        ({"offset": "8"}, "has 436 bytes, 432 at offset 8"),
        ({"offset": str(1 << 70)}, "at offset"),
        ({"length": "100"}, "needs 432 bytes; its external data entry holds 100"),
        ({"offset": "four"}, "malformed"),
    ],
)
def test_ranges_stay_inside_the_file(folder, entries, message):
    with pytest.raises(ModelError, match=message):
        from_onnx(save(folder, "data/w.bin", **entries))


def test_the_sum_of_all_weights_is_limited(folder, monkeypatch):
    path = save(folder, "data/w.bin", offset="4")
    monkeypatch.setattr(onnx_files, "MAX_MODEL_BYTES", path.stat().st_size + WEIGHT.nbytes)
    from_onnx(path)
    monkeypatch.setattr(onnx_files, "MAX_MODEL_BYTES", path.stat().st_size + WEIGHT.nbytes - 1)
    with pytest.raises(ModelError, match="weights exceed"):
        from_onnx(path)


def test_a_proto_alone_has_no_external_data(folder):
    proto = onnx.load(save(folder, "data/w.bin", offset="4"), load_external_data=False)
    with pytest.raises(ModelError, match="pass the model's path"):
        from_onnx(proto)


@pytest.mark.parametrize("cut", [1, 100, 300, -1])
def test_a_file_cut_short_is_refused(tmp_path, cut):
    path = tmp_path / "net.onnx"
    path.write_bytes(conv_net().SerializeToString()[:cut])
    with pytest.raises(ModelError) as caught:
        from_onnx(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(5))
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, seed):
    rng = np.random.default_rng(seed)
    whole = conv_net().SerializeToString()
    # The weights' values are most of the file; what is damaged here is the rest.
    places = np.flatnonzero(np.frombuffer(whole.replace(WEIGHT.tobytes(), bytes(432)), np.uint8))
    path = tmp_path / "net.onnx"
    refused = []
    for _ in range(40):
        data = bytearray(whole)
        for place in rng.choice(places, rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            from_onnx(path)
        except ModelError as error:
            refused.append(str(error))
    assert len(refused) >= 20
    assert not any("\n" in message for message in refused)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.onnx", "No such file"),
        ("none.pt2", "no such file"),
        ("net.tflite", "neither .onnx nor .pt2"),
    ],
)
def test_files_that_are_none(tmp_path, name, message):
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / name)


def test_a_folder_is_no_model(tmp_path):
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(ModelError, match="directory"):
        load_model(tmp_path / "net.onnx")


def test_other_files_are_no_models(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x89PNG" + bytes(range(256)))
    with pytest.raises(ModelError, match="not an ONNX model"):
        load_model(path)
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ModelError):
        load_model(tmp_path / "empty.onnx")
