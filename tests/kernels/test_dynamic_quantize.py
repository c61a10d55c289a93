"""DynamicQuantize and DynamicDequantize against their definition, in every layout and on every ISA row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kernel_harness import ROWS, check, every_isa, layout, spec
from tvmcomp.compress.reference import compute_outputs
from tvmcomp.graph.layers import DynamicDequantize, DynamicQuantize, TensorSpec
from tvmcomp.kernels.dynamic_quantize import build_dynamic_dequantize, build_dynamic_quantize
from tvmcomp.kernels.vector import GENERIC

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 3), (2, 1, 7, 37), (19, 270)]
LAYOUTS = [(0, 0), (1, 0), (2, 5), (0, 13)]
Problem = tuple[DynamicQuantize, dict[str, TensorSpec]]


def problem(shape: tuple[int, ...], dtype: str, per_row: bool) -> Problem:
    one = (*shape[:-1], 1) if per_row else (1,) * len(shape)
    tensors = {
        "x": spec("x", shape, "float32"),
        "y": TensorSpec("y", shape, dtype),
        "s": TensorSpec("s", one, "float32"),
        "z": TensorSpec("z", one, "int32"),
    }
    layer = DynamicQuantize(
        name="q", inputs=("x",), output="y", extra_outputs=("s", "z"), per_row=per_row
    )
    return layer, tensors


def huge(row: np.ndarray) -> np.ndarray:
    return np.where(row > 0, np.float32(3e38), np.float32(-3e38))


KINDS: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda row: row,
    np.abs,
    lambda row: -np.abs(row) - 1,
    np.zeros_like,
    huge,
    lambda row: row * np.float32(1e-42),
    lambda row: np.full_like(row, 2.5),
    lambda row: np.full_like(row, -0.0),
    lambda row: np.rint(row * 2) * 0.5,
]
POISONS = (np.nan, np.inf, -np.inf)


def values(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Rows of ordinary, huge, tiny, positive, negative, zero, constant and, last, non-finite numbers."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * 3).astype(np.float32)
    rows = x.reshape(-1, shape[-1])
    for i, row in enumerate(rows):
        row[:] = KINDS[i % len(KINDS)](row)
    for row, poison in zip(rows[len(KINDS) :], POISONS, strict=False):
        row[rng.integers(len(row))] = poison
    return x


@every_isa
@pytest.mark.parametrize("per_row", [True, False], ids=["row", "tensor"])
def test_quantize(row, per_row):
    for i, shape in enumerate(SHAPES):
        layer, tensors = problem(shape, "int8" if i % 2 else "uint8", per_row)
        halo, pad = LAYOUTS[i % 4]
        layouts = {name: layout(tensor) for name, tensor in tensors.items()}
        layouts["x"] = layout(tensors["x"], 0, i % 3)
        layouts["y"] = layout(tensors["y"], 0 if per_row else halo, pad)
        x = values(shape, i)
        check(build_dynamic_quantize, row, layer, tensors, layouts, arrays=[x])


@pytest.mark.parametrize("kind", range(len(KINDS) + len(POISONS)))
def test_range_of_a_tensor(kind):
    rng = np.random.default_rng(kind)
    x = rng.standard_normal((40, 530)).astype(np.float32)  # large enough for several threads
    if kind < len(KINDS):
        x = KINDS[kind](x)
    else:
        x[rng.integers(40), rng.integers(530)] = POISONS[kind - len(KINDS)]
    layer, tensors = problem(x.shape, "uint8", False)
    layouts = {name: layout(tensor) for name, tensor in tensors.items()}
    check(build_dynamic_quantize, ROWS[0].values[0], layer, tensors, layouts, arrays=[x])


@every_isa
@pytest.mark.parametrize("per_row", [True, False], ids=["row", "tensor"])
def test_dequantize(row, per_row):
    for i, shape in enumerate(SHAPES):
        quantize, tensors = problem(shape, "int8" if i % 2 else "uint8", per_row)
        layer = DynamicDequantize(name="d", inputs=("y", "s", "z"), output="r")
        arrays = compute_outputs(quantize, tensors, [values(shape, i)])
        tensors = {**tensors, "r": spec("r", shape, "float32")}
        layouts = {name: layout(tensor) for name, tensor in tensors.items()}
        layouts |= {"y": layout(tensors["y"], i % 2, i % 3), "r": layout(tensors["r"], 0, i % 3)}
        check(build_dynamic_dequantize, row, layer, tensors, layouts, arrays=arrays)


def test_rows_with_zero_points_of_their_own_have_no_border():
    layer, tensors = problem((1, 2, 3, 4), "uint8", True)
    layouts = {name: layout(tensor) for name, tensor in tensors.items()}
    layouts["y"] = layout(tensors["y"], halo=1)
    assert build_dynamic_quantize(layer, tensors, layouts, GENERIC) is None


def test_quotients_near_a_tie_round_as_a_division_does():
    """Rows of k + 1/2 steps and their neighbours, for scales with every kind of last bits, large and small."""
    rng = np.random.default_rng(5)
    exponents = [-70, -63, -20, 0, 30, 63, 70]
    ends = rng.uniform(1, 2, (60, len(exponents))) * 2.0 ** np.array(exponents)
    scale = (ends.astype(np.float32) / np.float32(255)).reshape(-1, 1)
    steps = rng.integers(0, 255, (len(scale), 300)) + 0.5
    x = (steps * scale).astype(np.float32).view(np.int32) + rng.integers(-2, 3, steps.shape)
    x = x.astype(np.int32).view(np.float32)
    x[:, 0], x[:, 1] = 0, scale[:, 0] * 255
    layer, tensors = problem(x.shape, "uint8", True)
    layouts = {name: layout(tensor) for name, tensor in tensors.items()}
    for row in (ROWS[0], ROWS[2]):
        y = check(build_dynamic_quantize, row.values[0], layer, tensors, layouts, arrays=[x])
        assert len(np.unique(y)) == 256


def test_keys_tell_functions_apart():
    keys = set()
    for dtype, per_row in (("uint8", True), ("uint8", False), ("int8", True)):
        for halo, pad in ((0, 0), (0, 3), (1, 0)):
            layer, tensors = problem((1, 2, 3, 20), dtype, per_row)
            layouts = {name: layout(tensor) for name, tensor in tensors.items()}
            layouts["y"] = layout(tensors["y"], 0 if per_row else halo, pad + 16 * halo * per_row)
            kernel = build_dynamic_quantize(layer, tensors, layouts, GENERIC)
            keys.add((kernel.key, str(kernel.func)))
    assert len({key for key, _ in keys}) == len({text for _, text in keys}) == 9
