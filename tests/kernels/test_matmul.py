"""Products of two activations equal their definition, whatever the shape, zero points and layouts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kernel_harness import ROWS, check, every_isa, layout, spec
from tvmcomp.graph.layers import FloatMatMul, IntMatMul, TensorSpec
from tvmcomp.kernels.matmul import build_matmul
from tvmcomp.kernels.vector import GENERIC, Isa

Row = tuple[Isa, str]

# a, b and y as stored, with perms of a, b and y
SHAPES = {
    "plain": ((2, 3, 17, 20), (2, 3, 20, 33), None, None, None),
    "transposed b": ((2, 3, 17, 20), (2, 3, 33, 20), None, (0, 1, 3, 2), None),
    "swin": ((5, 49, 32), (5, 49, 32), None, (0, 2, 1), None),
    "swin values": ((5, 49, 49), (5, 49, 32), None, None, None),
    "heads": ((1, 13, 2, 16), (1, 9, 2, 16), (0, 2, 1, 3), (0, 2, 3, 1), None),
    "heads merged": ((1, 2, 13, 9), (1, 9, 2, 16), None, (0, 2, 1, 3), (0, 2, 1, 3)),
    "one row": ((3, 1, 70), (3, 70, 5), None, None, None),
    "one of all": ((1, 1), (1, 1), None, None, None),
    "odd": ((7, 131), (131, 67), None, None, None),
    "odd transposed": ((7, 131), (67, 131), None, (1, 0), None),
    "broadcast": ((2, 1, 5, 8), (3, 8, 6), None, None, None),
    "grouped queries": ((1, 2, 3, 5, 8), (1, 2, 1, 7, 8), None, (0, 1, 2, 4, 3), None),
}


# Compiling takes a while: every shape on the widest row, the most varied ones on all.
FEW = ("odd transposed", "heads merged")
CASES = [
    pytest.param(name, *row.values, id=f"{name}-{row.id}", marks=row.marks)
    for row in ROWS
    for name in (SHAPES if row is ROWS[0] else FEW)
]


def product(name: str, dtypes: tuple[str, str, str], zeros=(3, 131, 77)):
    a, b, perm_a, perm_b, perm_y = SHAPES[name]
    left = np.zeros(a).transpose(perm_a or range(len(a)))
    right = np.zeros(b).transpose(perm_b or range(len(b)))
    shape = np.matmul(left, right)
    shape = shape.transpose(perm_y or range(shape.ndim)).shape
    tensors = {
        key: spec(key, size, dtype, zero=zero - 128 * (dtype == "int8"))
        for key, size, dtype, zero in zip("aby", (a, b, shape), dtypes, zeros, strict=True)
    }
    fields = {"perm_a": perm_a, "perm_b": perm_b, "perm_y": perm_y}
    layer = {"name": "l", "inputs": ("a", "b"), "output": "y", **fields}
    return layer, tensors, left.shape[-1]


def dense(tensors: dict[str, TensorSpec]):
    return {name: layout(tensor) for name, tensor in tensors.items()}


def codes(name: str, dtypes=("uint8", "uint8", "uint8"), zeros=(3, 131, 77), low=None, scale=1.0):
    layer, tensors, k = product(name, dtypes, zeros)
    info = np.iinfo(dtypes[2])
    multiplier = float(np.float32(scale * 0.004 / k**0.5))
    low = info.min if low is None else low
    return IntMatMul(**layer, multiplier=multiplier, low=low, high=info.max), tensors


@pytest.mark.parametrize(("name", "row"), CASES)
def test_codes_equal_the_definition(name: str, row: Row):
    layer, tensors = codes(name)
    got = check(build_matmul, row, layer, tensors, dense(tensors))
    assert got.size < 10 or len(np.unique(got)) > 5


@every_isa
@pytest.mark.parametrize("zeros", [(0, 128, 0), (128, 128, 9), (0, 77, 255), (255, 0, 128)])
def test_every_zero_point_and_dtype(zeros: tuple[int, int, int], row: Row):
    for dtypes in (("uint8", "uint8", "uint8"), ("int8", "int8", "uint8")):
        layer, tensors = codes("odd transposed", dtypes, zeros)
        check(build_matmul, row, layer, tensors, dense(tensors))


@every_isa
@pytest.mark.parametrize("scale", [-1.0, 1e9, 0.0])
def test_multipliers_and_limits(scale: float, row: Row):
    layer, tensors = codes("heads merged", scale=scale, low=9)
    check(build_matmul, row, layer, tensors, dense(tensors))


@every_isa
def test_rounding_does_not_see_the_zero_point(row: Row):
    """Just above a half: a float32 sum with the zero point would lie on it."""
    layer, tensors = codes("odd transposed", zeros=(0, 0, 128))
    layer = replace(layer, multiplier=float(np.nextafter(np.float32(0.5), np.float32(1))))
    arrays = [np.zeros(tensors[name].shape, np.uint8) for name in "ab"]
    for array in arrays:
        array[:, 0] = 1
    assert (check(build_matmul, row, layer, tensors, dense(tensors), arrays=arrays) == 129).all()


@every_isa
def test_the_largest_sums_are_exact(row: Row):
    layer, tensors = codes("odd transposed", zeros=(0, 0, 0))
    full = [np.full(tensors[name].shape, 255, np.uint8) for name in "ab"]
    assert check(build_matmul, row, layer, tensors, dense(tensors), arrays=full).min() == 255


@every_isa
def test_pitches_and_halos_are_walked_and_written(row: Row):
    layer, tensors = codes("plain")
    layouts = {name: layout(tensor, halo=1, pad=15) for name, tensor in tensors.items()}
    check(build_matmul, row, layer, tensors, layouts)


@pytest.mark.parametrize(("name", "row"), CASES)
def test_floats_are_close_to_the_definition(name: str, row: Row):
    layer, tensors, _ = product(name, ("float32", "float32", "float32"))
    matmul = FloatMatMul(**layer, scale=0.125, low=-0.5)
    check(build_matmul, row, matmul, tensors, dense(tensors), rtol=1e-5)


def test_operands_that_are_contiguous_nowhere_are_refused():
    layer, tensors = codes("transposed b")
    turned = IntMatMul(**{**vars(layer), "perm_b": (3, 1, 2, 0)})
    assert build_matmul(turned, tensors, dense(tensors), GENERIC) is None
