"""Tensors as kernels wrote them, without halo and pitch, and runs with tensors put in place of a network's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from runtime import tiny
from tvmcomp.artifact import Payload
from tvmcomp.errors import ArtifactError
from tvmcomp.runtime.capture import Capture, Stored, calls_of

SHAPE = (tiny.ROWS, tiny.LANES)


def row(layer: str, reads: tuple[str, ...], *writes: tuple[str, str]) -> Mapping[str, object]:
    return {
        "layer": layer,
        "kind": "Opaque",
        "reads": list(reads),
        "constants_offset": 0,
        "writes": [
            {
                "name": name,
                "dtype": dtype,
                "shape": list(SHAPE),
                "scale": None,
                "zero_point": None,
                "extent": [1, 1, *SHAPE],
                "halo": 0,
                "pitch": tiny.LANES,
            }
            for name, dtype in writes
        ],
    }


def test_a_tensor_with_halo_and_pitch() -> None:
    tensor = Stored("x", "int8", (1, 2, 3, 5), 0.5, 4, (1, 2, 3, 5), 1, 8)
    memory = np.zeros(16 + 4 * 5 * 8, np.uint8)
    inner = tensor.inner(tensor.view(memory, 16))
    assert inner.shape == tensor.shape
    inner[...] = 7
    assert np.count_nonzero(memory) == 2 * 3 * 5
    # Row 1, column 1 of 5 columns of 8 bytes is the first within the halo.
    assert np.flatnonzero(memory)[0] == 16 + (1 * 5 + 1) * 8
    np.testing.assert_array_equal(tensor.real(inner), np.full(tensor.shape, 1.5))


@pytest.mark.parametrize("rows", [({"layer": "x"},), (dict(row("x", ()), writes=3),)])
def test_a_manifest_without_tensors_is_refused(
    tiny_payload: Payload, rows: tuple[Mapping[str, object], ...]
) -> None:
    with pytest.raises(ArtifactError, match="compile the model again"):
        calls_of(_with(tiny_payload, rows))


def test_a_manifest_with_other_calls_is_refused(tiny_payload: Payload) -> None:
    rows = (row("enter", ("x",), ("a", "float32")),)
    with pytest.raises(ArtifactError, match="compile the model again"):
        Capture(_with(tiny_payload, rows)).run(tiny.inputs(1))


def _with(payload: Payload, rows: tuple[Mapping[str, object], ...]) -> Payload:
    function = payload.function
    variant = replace(function.variants[0], kernels=rows)
    manifest = replace(payload.manifest, functions=(replace(function, variants=(variant,)),))
    return replace(payload, manifest=manifest)
