"""Generated inputs look like photographs: smooth, correlated, not constant, the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcomp.errors import DataError
from tvmcomp.measure import describe_inputs, sample_inputs
from tvmcomp.model import Signature, TensorType


def make(seed=0, **inputs):
    return sample_inputs(Signature({n: TensorType(*of) for n, of in inputs.items()}, {}), seed)


def neighbours(x, axis):
    """Correlation of each value with the next one along `axis`."""
    a = np.take(x, range(x.shape[axis] - 1), axis).ravel()
    b = np.take(x, range(1, x.shape[axis]), axis).ravel()
    return np.corrcoef(a, b)[0, 1]


@pytest.mark.parametrize(
    ("shape", "smooth", "channel"),
    [((1, 3, 64, 64), (2, 3), 1), ((2, 64, 48, 3), (1, 2), 3), ((1, 3, 8, 24, 24), (2, 3, 4), 1)],
)
def test_images_are_smooth_and_their_channels_correlated(shape, smooth, channel):
    (x,) = make(x=(shape, "float32")).values()
    assert (x.shape, x.dtype) == (shape, np.float32)
    assert all(neighbours(x, axis) > 0.6 for axis in smooth)
    assert neighbours(x, channel) > 0.5
    assert abs(x.mean()) < 0.05
    assert 0.9 < x.std() < 1.05
    assert np.abs(x).max() <= 3


@pytest.mark.parametrize(("shape", "axis"), [((1, 256), 1), ((2, 128, 16), 1), ((64,), 0)])
def test_rows_are_smooth_along_time(shape, axis):
    (x,) = make(x=(shape, "float64")).values()
    assert neighbours(x, axis) > 0.4
    assert np.isfinite(x).all()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 8, 1, 1), (3, 1, 5)])
def test_shapes_without_space_still_get_finite_values(shape):
    (x,) = make(x=(shape, "float32")).values()
    assert x.shape == shape
    assert np.isfinite(x).all()


def test_the_seed_decides():
    of = ((1, 3, 16, 16), "float32")
    assert np.array_equal(make(x=of)["x"], make(x=of)["x"])
    assert not np.array_equal(make(x=of)["x"], make(seed=1, x=of)["x"])


def test_integers_are_pixels_codes_ids_and_masks():
    made = make(
        pixels=((1, 32, 32, 3), "uint8"),
        codes=((1, 3, 32, 32), "int8"),
        ids=((1, 128), "int64"),
        attention_mask=((1, 128), "int64"),
        flags=((4,), "bool"),
    )
    assert {n: a.dtype.name for n, a in made.items()} == {
        "pixels": "uint8",
        "codes": "int8",
        "ids": "int64",
        "attention_mask": "int64",
        "flags": "bool",
    }
    assert 100 < made["pixels"].mean() < 155
    assert made["pixels"].std() > 30
    assert made["codes"].min() < -30
    assert made["codes"].max() > 30
    assert made["ids"].min() == 0
    assert 20 < made["ids"].max() < 100
    assert (made["attention_mask"] == 1).all()
    assert made["flags"].all()


def test_a_type_without_data_is_refused():
    with pytest.raises(DataError, match="'x' is complex64"):
        make(x=((2,), "complex64"))


def test_the_digest_covers_names_types_and_values():
    base = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    variants = [
        base,
        {"y": base["x"]},
        {"x": base["x"].reshape(3, 2)},
        {"x": base["x"].view(np.int32)},
        {"x": base["x"] + 1},
    ]
    digests = [describe_inputs(inputs, "").digest for inputs in variants]
    assert len(set(digests)) == len(variants)
    assert digests[0].startswith("sha256:")
    same = describe_inputs({"x": np.asfortranarray(base["x"])}, "other words")
    assert same.digest == digests[0]
    assert same.description == "other words"


def test_indices_into_small_tables_stay_inside_them():
    made = make(
        token_type_ids=((2, 8), "int64"), segment=((8,), "int32"), position_ids=((2, 8), "int64")
    )
    assert not made["token_type_ids"].any()
    assert not made["segment"].any()
    np.testing.assert_array_equal(made["position_ids"], [np.arange(8)] * 2)


def test_ids_stay_within_their_bounds():
    signature = Signature({"ids": TensorType((4, 512), "int64", (-10, 9))}, {})
    ids = sample_inputs(signature)["ids"]
    assert ids.dtype == np.int64
    assert (ids.min(), ids.max()) == (0, 9)
