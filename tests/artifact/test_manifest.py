"""Manifests map one to one on JSON; one that is not what it should be names the field."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from contextlib import suppress

import pytest

from artifact.forge import payload
from tvmcomp.artifact import Manifest
from tvmcomp.artifact.fields import encode
from tvmcomp.errors import ArtifactError


@pytest.fixture
def good() -> dict[str, object]:
    return json.loads(encode(payload().manifest.to_json(), "manifest"))


def test_round_trip(good: dict[str, object]) -> None:
    manifest = Manifest.from_json(good)
    assert manifest == payload().manifest
    assert json.loads(encode(manifest.to_json(), "manifest")) == good


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("functions",), {}, "functions"),
        (("functions", 0, "name"), 3, r"functions\[0\]\.name"),
        (("functions", 0, "golden", "rtol"), -1, r"golden\.rtol"),
        (("functions", 0, "golden", "atol"), "1", r"golden\.atol"),
        (("functions", 0, "signature", "inputs", 1, "dtype"), "bfloat16", r"inputs\[1\]\.dtype"),
        (("functions", 0, "signature", "inputs", 1, "dtype"), "float32, O", r"inputs\[1\]\.dtype"),
        (("functions", 0, "signature", "inputs", 1, "name"), "x", "share a name"),
        (("functions", 0, "signature", "inputs", 0, "shape"), [2, -3], r"shape\[1\]"),
        (("functions", 0, "signature", "inputs", 0, "shape"), [2**40, 3], r"inputs\[0\]\.shape"),
        (("functions", 0, "signature", "inputs", 0, "shape"), [1] * 33, r"inputs\[0\]\.shape"),
        (("functions", 0, "signature", "inputs", 0, "shape"), [True, 3], r"shape\[0\]"),
        (("functions", 0, "signature", "inputs", 0, "bounds"), [2, 1], r"inputs\[0\]\.bounds"),
        (("functions", 0, "signature", "inputs", 0, "bounds"), [0, 2**63], r"inputs\[0\]\.bounds"),
        (("functions", 0, "signature", "outputs"), [], "no tensors"),
        (("functions", 0, "variants", 0, "arena_bytes"), 1.5, "arena_bytes"),
        (("functions", 0, "variants", 0, "arena_bytes"), 2**63, "arena_bytes"),
        (("functions", 0, "variants", 0, "required_features"), "avx2", "required_features"),
        (("functions", 0, "variants", 0, "kernels"), [1], r"kernels\[0\]"),
        (("versions", "tvm"), None, r"versions\.tvm"),
        (("source",), [], "source"),
        (("recipe",), 1, "recipe"),
        (("sizes", "weights"), "big", r"sizes\.weights"),
        (("steps",), [None], r"steps\[0\]"),
        (("files",), {"lib.so": {"sha256": "AB" * 32, "bytes": 1}}, r"files\.lib\.so\.sha256"),
        (("schema_version",), "1", "schema_version"),
    ],
)
def test_a_wrong_field_is_named(
    good: dict[str, object], path: tuple[str | int, ...], value: object, field: str
) -> None:
    _put(good, path, value)
    with pytest.raises(ArtifactError, match=field) as raised:
        Manifest.from_json(good)
    assert "\n" not in str(raised.value)


def test_missing_and_unknown_fields(good: dict[str, object]) -> None:
    for path in [p for p, value in _places(good) if isinstance(value, dict)]:
        if path[:1] in (("sizes",), ("files",), ("recipe",)) or path[-2:-1] in (
            ("kernels",),
            ("weight_table",),
        ):
            continue
        for key in list(_get(good, path)):
            changed = copy.deepcopy(good)
            del _get(changed, path)[key]
            with pytest.raises(ArtifactError, match=key):
                Manifest.from_json(changed)
        changed = copy.deepcopy(good)
        _get(changed, path)["surprise"] = 1
        with pytest.raises(ArtifactError, match="surprise"):
            Manifest.from_json(changed)


def test_any_value_anywhere_is_taken_or_refused(good: dict[str, object]) -> None:
    rng = random.Random(3)
    odd = [None, True, -1, 0, 2**70, 1.5, "", "\ud800", "x" * 1000, [], [[]], {}, {"a": 1}]
    places = [path for path, _ in _places(good) if path]
    for _ in range(1500):
        changed = copy.deepcopy(good)
        _put(changed, rng.choice(places), copy.deepcopy(rng.choice(odd)))
        # Any other exception fails the test.
        with suppress(ArtifactError):
            manifest = Manifest.from_json(changed)
            assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def _places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple, object]]:
    yield path, value
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(child, (*path, key))


def _get(value: object, path: tuple[str | int, ...]) -> object:
    for key in path:
        value = value[key]
    return value


def _put(value: object, path: tuple[str | int, ...], new: object) -> None:
    _get(value, path[:-1])[path[-1]] = new
