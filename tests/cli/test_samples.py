"""Samples of a file to calls of a network, and its outputs back to one array each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tvmcomp.cli.samples import run_samples, sample_calls, write_npz
from tvmcomp.errors import DataError, TvmcompError
from tvmcomp.measure.exchange import read_npz
from tvmcomp.model import Signature, TensorType

BATCH_1 = Signature({"x": TensorType((1, 3), "float32")}, {"y": TensorType((1, 2), "float32")})
BATCH_2 = Signature({"x": TensorType((2, 3), "float32")}, {"y": TensorType((2, 2), "float32")})
SCALARS = Signature(
    {"x": TensorType((1, 3), "float32"), "gain": TensorType((), "float32")},
    {"total": TensorType((), "float32")},
)


class Double:
    """y = the first two of 2 x; counts its calls."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.calls = 0

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls += 1
        assert inputs["x"].shape == self.signature.inputs["x"].shape
        if "gain" in inputs:
            return {"total": np.asarray(inputs["x"].sum() * inputs["gain"])}
        return {"y": 2 * inputs["x"][:, :2]}


def ramp(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(("signature", "calls"), [(BATCH_1, 4), (BATCH_2, 2)])
def test_every_sample_runs_once_and_in_order(signature: Signature, calls: int) -> None:
    network, x = Double(signature), ramp(4, 3)
    seen: list[tuple[int, int | None]] = []
    outputs = run_samples(network, {"x": x}, lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(outputs["y"], 2 * x[:, :2])
    assert network.calls == calls
    assert seen == [(i + 1, calls) for i in range(calls)]


def test_one_call_keeps_the_networks_own_shape() -> None:
    network = Double(BATCH_1)
    np.testing.assert_array_equal(run_samples(network, {"x": ramp(1, 3)})["y"], [[0, 2]])
    np.testing.assert_array_equal(run_samples(network, {"x": ramp(3)})["y"], [[0, 2]])


def test_scalars_come_one_per_sample_and_outputs_without_batch_are_stacked() -> None:
    x, gain = ramp(4, 3), ramp(4)
    outputs = run_samples(Double(SCALARS), {"x": x, "gain": gain})
    np.testing.assert_array_equal(outputs["total"], x.sum(axis=1) * gain)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": ramp(3, 3)}, "3 samples, not a multiple of the network's batch 2; drop 1"),
        ({"x": ramp(4, 4)}, r"has shape \[4, 4\], the network takes \[2, 3\]; give it as \[samples, 3\]"),
        ({"x": ramp(2, 4, 3)}, "has shape"),
        ({"x": ramp(0, 3)}, "no samples"),
        ({"y": ramp(2, 3)}, r"missing \['x'\], unknown \['y'\]"),
        ({"x": ramp(2, 3), "label": ramp(2)}, r"unknown \['label'\]"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(arrays: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(DataError, match=words):
        sample_calls(BATCH_2, arrays)


def test_inputs_have_to_agree_on_their_number() -> None:
    with pytest.raises(DataError, match="'x' and 'gain' hold 4 and 3"):
        sample_calls(SCALARS, {"x": ramp(4, 3), "gain": ramp(3)})


def test_npz_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    # "file" and "allow_pickle" are arguments of numpy.savez.
    names = ["x", "name with = and /", "file", "allow_pickle"]
    write_npz(path, {name: ramp(2, 3) for name in names})
    back = read_npz(path)
    assert list(back) == names
    np.testing.assert_array_equal(back["x"], ramp(2, 3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_broken_files_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, {"x": ramp(64, 64)})
    good = path.read_bytes()
    np.save(tmp_path / "one.npy", ramp(3))
    cases = {
        b"": "cannot be read",
        b"hello": "cannot be read as .npz .it is in another format",  # and not "trust the file"
        good[: len(good) // 2]: "cannot be read",
        good[:200] + bytes([good[200] ^ 1]) + good[201:]: "cannot be read",
        (tmp_path / "one.npy").read_bytes(): "without a name",
    }
    for content, words in cases.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_npz(path)
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="Object arrays"):  # a reason to save it otherwise
        read_npz(path)
    with pytest.raises(DataError, match="No such file"):
        read_npz(tmp_path / "none.npz")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, {"x": ramp(1)})
    before = path.read_bytes()

    def full(file: object, *_: object, **__: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(TvmcompError, match=r"a\.npz: cannot be written \(No space left"):
        write_npz(path, {"x": ramp(2)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]
