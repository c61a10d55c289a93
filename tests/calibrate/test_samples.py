"""Calibration data: every accepted source gives the same batches, every mistake one clear line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tvmcomp.calibrate import load_samples
from tvmcomp.errors import CalibrationError
from tvmcomp.model import Signature, TensorType

ONE = Signature({"x": TensorType((1, 2, 3), "float32")}, {})
TWO = Signature({"a": TensorType((2, 3), "float32"), "b": TensorType((2,), "int64")}, {})


def data(n: int = 4) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 2, 3)).astype(np.float32)


def batches(source: object, signature: Signature = ONE) -> list[dict[str, np.ndarray]]:
    return list(load_samples(source, signature))  # type: ignore[arg-type]


def test_every_source_gives_the_same_batches_and_digest(tmp_path: Path) -> None:
    x = data()
    np.savez(tmp_path / "x.npz", x=x)
    (tmp_path / "many").mkdir()
    for i, part in enumerate(np.split(x, 2)):
        np.save(tmp_path / "many" / f"{i}.npy", part)
    np.save(tmp_path / "x.npy", x)
    sources = {
        "npz": str(tmp_path / "x.npz"),
        "npy": tmp_path / "x.npy",
        "folder": tmp_path / "many",
        "array": x,
        "dict": {"x": x},
        "samples without batch axis": list(x),
        "batches": [x[:1], x[1:]],
        "tuples": [(x[:2],), (x[2:],)],
        "dicts": [{"x": x[:3]}, {"x": x[3:]}],
        "generator": (part for part in x),
        "fortran": np.asfortranarray(x),
        "strided": np.repeat(x, 2, axis=0)[::2],
        "byte-swapped": x.astype(">f4"),
    }
    digests = set()
    for name, source in sources.items():
        samples = load_samples(source, ONE)
        got = list(samples)
        assert [set(batch) for batch in got] == [{"x"}] * 4, name
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in got]), x, name)
        assert all(batch["x"].flags.c_contiguous for batch in got), name
        assert all(batch["x"].dtype == np.dtype("float32") for batch in got), name
        digests.add(samples.digest)
    assert len(digests) == 1
    other = load_samples(x + 1, ONE)
    assert other.digest not in digests


def test_count_is_known_where_the_source_can_be_read_twice() -> None:
    assert load_samples(data(4), ONE).count == 4
    assert load_samples(iter(data(4)), ONE).count is None


def test_model_batches_and_several_inputs() -> None:
    a = np.arange(12, dtype=np.float32).reshape(4, 3)
    b = np.arange(4)
    for source in ({"b": b, "a": a}, (a, b), [(a[:2], b[:2]), (a[2:], b[2:])]):
        first, second = batches(source, TWO)
        np.testing.assert_array_equal(first["a"], a[:2])
        np.testing.assert_array_equal(second["b"], b[2:])


def nan(x: np.ndarray, value: float = np.nan) -> np.ndarray:
    x[2, 1, 1] = value
    return x


@pytest.mark.parametrize(
    ("source", "signature", "message"),
    [
        (nan(data()), ONE, "sample 2 of input 'x' holds NaN or infinity; remove that sample"),
        (nan(data(), -np.inf), ONE, "sample 2 of input 'x' holds NaN or infinity"),
        (data()[:, :1], ONE, r"input 'x' has shape \[4, 1, 3\], the model takes \[1, 2, 3\]"),
        (data()[..., None], ONE, r"has shape \[4, 2, 3, 1\].*give it as \[samples, 2, 3\]"),
        (
            data().astype("float64"),
            ONE,
            r"dtype float64, the model takes float32.*astype\('float32'\)",
        ),
        (data()[:0], ONE, "holds no samples"),
        ([], ONE, "holds no samples"),
        ({"y": data()}, ONE, "names are y, the model's inputs are x"),
        ([(data(), np.arange(4))], ONE, "item 0 holds 2 arrays, the model has 1 inputs"),
        (
            {"a": data()[:3, 0], "b": np.arange(3)},
            TWO,
            "3 samples.*multiple of the model's batch 2",
        ),
        ({"a": data()[:, 0], "b": np.arange(2)}, TWO, "'a' and 'b' hold 4 and 2 samples"),
        (7, ONE, "calibration data is a int; give a .npz"),
        ("data.csv", ONE, "neither a .npz file nor a folder"),
        ("missing.npz", ONE, "cannot be read: No such file"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(
    source: object, signature: Signature, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message) as error:
        load_samples(source, signature)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("items", "message"),
    [([], "holds no samples"), ([data(2), nan(data(3))], "sample 4 of input 'x' holds NaN")],
)
def test_a_generator_is_checked_as_it_is_read(items: list[np.ndarray], message: str) -> None:
    samples = load_samples(iter(items), ONE)
    with pytest.raises(CalibrationError, match=message):
        list(samples)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=data())
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("x")
    np.save(tmp_path / "array", data())
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "none").mkdir()
    for name in ("cut.npz", "text.npz", "array.npz", "pickle.npy", "none"):
        with pytest.raises(CalibrationError, match=name):
            load_samples(tmp_path / name, ONE)


def test_a_folder_cannot_feed_several_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", data())
    with pytest.raises(CalibrationError, match=r"npy files have no names.*save a .npz"):
        load_samples(tmp_path, TWO)


def test_constant_data_is_a_warning_once() -> None:
    with pytest.warns(UserWarning, match=r"input 'x' is 2.0 everywhere"):
        samples = load_samples(np.full((3, 2, 3), 2, np.float32), ONE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(samples)) == 3


def test_one_batch_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="is one batch"):
        load_samples(data(1), ONE)


def test_ordinary_data_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(batches(data(2))) == 2


def test_torch_tensors_and_loaders_work() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(data())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tensor), batch_size=2)
    for source in (tensor, loader):
        got = np.concatenate([batch["x"] for batch in batches(source)])
        np.testing.assert_array_equal(got, data())


def test_samples_are_read_one_by_one() -> None:
    drawn: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for i in range(5):
            drawn.append(i)
            yield data(5)[i]

    stream = iter(load_samples(source(), ONE))
    next(stream)
    assert drawn == [0]


def test_indices_outside_their_bounds_are_named():
    signature = Signature({"i": TensorType((1, 2), "int64", (-10, 9))}, {})
    with pytest.raises(CalibrationError, match=r"sample 1 of input 'i' holds 10, .*from -10 to 9"):
        load_samples(np.array([[0, -10], [9, 10]]), signature)
