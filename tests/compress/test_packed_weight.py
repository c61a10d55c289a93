"""The three weight forms: numpy meaning against a loop, sizes in bytes, refusals."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcomp.compress.granularity import Granularity, PerAxis, PerGroup, PerTensor, resolve
from tvmcomp.compress.packed_weight import BlockSparseWeight, LookupWeight, UniformWeight
from tvmcomp.compress.packing import code_range
from tvmcomp.errors import QuantizeError


@st.composite
def tensors(draw: st.DrawFn) -> tuple[tuple[int, ...], Granularity, np.random.Generator]:
    """A shape, a granularity that fits it, and a generator."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    axis = draw(st.integers(0, len(shape) - 1))
    size = draw(st.sampled_from([n for n in range(1, shape[axis] + 1) if shape[axis] % n == 0]))
    granularity = draw(st.sampled_from([PerTensor(), PerAxis(axis), PerGroup(size, axis)]))
    return shape, granularity, np.random.default_rng(draw(st.integers(0, 999)))


def parameter_index(granularity: Granularity, index: tuple[int, ...]) -> tuple[int, ...]:
    """Which parameter the element at `index` uses, written out."""
    if isinstance(granularity, PerTensor):
        return ()
    axis = granularity.axis
    assert axis is not None
    if isinstance(granularity, PerAxis):
        return (index[axis],)
    return (*index[:axis], index[axis] // granularity.size, *index[axis + 1 :])


@given(
    case=tensors(),
    bits=st.integers(2, 8),
    signed=st.booleans(),
    kind=st.sampled_from(("", "int", "float")),
)
@settings(max_examples=200, deadline=None)
def test_uniform_equals_the_loop(case: Any, bits: int, signed: bool, kind: str) -> None:
    shape, granularity, rng = case
    low, high = code_range(bits, signed)
    dtype = np.int8 if signed else np.uint8
    codes = rng.integers(low, high, shape, endpoint=True).astype(dtype)
    wanted = granularity.parameter_shape(shape)
    scale = np.array(rng.uniform(0.1, 2, wanted), np.float32)
    points = np.array(rng.integers(low, high, wanted, endpoint=True))
    zero_point = {"": None, "int": points.astype(dtype), "float": points.astype(np.float32) + 0.5}[
        kind
    ]
    form = UniformWeight.from_codes(codes, scale, zero_point, bits=bits, granularity=granularity)
    np.testing.assert_array_equal(form.codes(), codes)
    assert form.codes().dtype == dtype
    expected = np.empty(shape, np.float32)
    for index in product(*map(range, shape)):
        at = parameter_index(granularity, index)
        zero = np.float32(0) if zero_point is None else np.float32(zero_point[at])
        expected[index] = (np.float32(codes[index]) - zero) * scale[at]
    actual = form.dequantized()
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, expected)


@given(case=tensors(), bits=st.integers(2, 8), data=st.data())
@settings(max_examples=150, deadline=None)
def test_lookup_equals_the_loop(case: Any, bits: int, data: st.DataObject) -> None:
    shape, granularity, rng = case
    entries = data.draw(st.integers(1, 2**bits))
    codes = rng.integers(0, entries, shape).astype(np.uint8)
    table = rng.standard_normal((*granularity.parameter_shape(shape), entries)).astype(np.float32)
    form = LookupWeight.from_codes(codes, table, bits=bits, granularity=granularity)
    expected = np.empty(shape, np.float32)
    for index in product(*map(range, shape)):
        expected[index] = table[parameter_index(granularity, index)][codes[index]]
    np.testing.assert_array_equal(form.dequantized(), expected)


@given(grid=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data())
@settings(max_examples=150, deadline=None)
def test_block_sparse_round_trip(grid: list[int], data: st.DataObject) -> None:
    block = tuple(data.draw(st.integers(1, 4)) for _ in grid)
    shape = tuple(g * b for g, b in zip(grid, block, strict=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    keep = rng.random(grid) < 0.5
    dense = rng.standard_normal(shape).astype(np.float32) * np.kron(
        keep, np.ones(block, np.float32)
    )
    form = BlockSparseWeight.from_dense(dense.astype(np.float32), block)
    np.testing.assert_array_equal(form.dequantized(), dense)
    assert len(form.values) == keep.sum()
    assert form.density == keep.mean()
    assert form.index.itemsize == 1


def test_block_sparse_integers_with_scales() -> None:
    dense = np.zeros((4, 6), np.int8)
    dense[2:, :3] = 5
    scale = np.float32([1, 2, 3, 4])
    form = BlockSparseWeight.from_dense(dense, (2, 3), scale, PerAxis(0))
    np.testing.assert_array_equal(form.dequantized(), dense * scale[:, None])
    assert (form.values.nbytes, form.index.nbytes, form.nbytes) == (6, 1, 23)


def test_bytes_are_what_is_stored() -> None:
    codes = np.zeros((64, 10), np.uint8)
    uniform = UniformWeight.from_codes(
        codes,
        np.ones((2, 10), np.float32),
        np.zeros((2, 10), np.uint8),
        bits=3,
        granularity=PerGroup(32, 0),
    )
    assert uniform.nbytes == 640 * 3 // 8 + 20 * 4 + 20
    table = np.zeros((10, 12), np.float32)
    lookup = LookupWeight.from_codes(codes, table, bits=4, granularity=PerAxis(1))
    assert lookup.nbytes == 320 + 480


def test_scale_per_channel() -> None:
    codes, scale = np.zeros((3, 4), np.int8), np.float32([1, 2, 3])
    form = UniformWeight.from_codes(codes, scale, None, bits=8, granularity=PerAxis(0))
    assert form.scale_per_channel(0) is scale
    assert form.scale_per_channel(1) is None
    whole = UniformWeight.from_codes(
        codes, np.float32(2).reshape(()), None, bits=8, granularity=PerTensor()
    )
    np.testing.assert_array_equal(whole.scale_per_channel(1), [2, 2, 2, 2])
    shifted = UniformWeight.from_codes(
        codes, scale, np.int8([1, 0, 0]), bits=8, granularity=PerAxis(0)
    )
    assert shifted.scale_per_channel(0) is scale


@pytest.mark.parametrize(
    ("codes", "zero_point", "want", "dtype"),
    [
        (np.int8([[-128, 127]]), None, [[-128, 127]], np.int8),
        (np.uint8([[0, 255]]), np.uint8([128]), [[-128, 127]], np.int8),
        (np.uint8([[0, 255]]), np.uint8([127]), [[-127, 128]], np.int16),
        (np.uint8([[0, 255]]), None, [[0, 255]], np.int16),
        (np.int8([[-128, 3]]), np.int8([127]), [[-255, -124]], np.int16),
    ],
)
def test_codes_less_their_zero_points(codes, zero_point, want, dtype) -> None:
    scale = np.float32([0.5])
    form = UniformWeight.from_codes(codes, scale, zero_point, bits=8, granularity=PerAxis(0))
    centered = form.centered()
    assert centered.dtype == dtype
    np.testing.assert_array_equal(centered, want)
    np.testing.assert_array_equal(form.dequantized(), centered * scale)


@pytest.mark.parametrize(
    ("granularity", "message"),
    [
        (PerGroup(48, 1), r"group size 48 does not divide axis 1 of length 100; use 20, 25, 50"),
        (PerAxis(2), r"does not fit a tensor of shape \[4, 100\]; use an axis from 0 to 1"),
    ],
)
def test_a_granularity_that_does_not_fit(granularity: Granularity, message: str) -> None:
    with pytest.raises(QuantizeError, match=message):
        granularity.parameter_shape((4, 100))


@pytest.mark.parametrize("bits", [1, 9])
def test_unpackable_widths(bits: int) -> None:
    with pytest.raises(QuantizeError, match="use 2 to 8 bits"):
        UniformWeight(
            np.zeros(bits, np.uint8), np.ones((), np.float32), None, (8,), bits, False, PerTensor()
        )


def test_codes_that_do_not_fit_their_bits() -> None:
    with pytest.raises(ValueError, match="do not fit 3 bits"):
        UniformWeight.from_codes(
            np.int8([4]), np.ones((), np.float32), None, bits=3, granularity=PerTensor()
        )
    with pytest.raises(ValueError, match="codes must be uint8 below 3"):
        LookupWeight.from_codes(
            np.uint8([3]), np.zeros(3, np.float32), bits=2, granularity=PerTensor()
        )


def test_blocks_that_do_not_tile() -> None:
    with pytest.raises(
        QuantizeError, match=r"block \[2, 3\] does not tile a weight of shape \[4, 4\]"
    ):
        BlockSparseWeight.from_dense(np.zeros((4, 4), np.float32), (2, 3))


def test_a_table_that_is_too_long() -> None:
    with pytest.raises(QuantizeError, match="17 entries does not fit codes of 4 bits; use 1 to 16"):
        LookupWeight(np.zeros(4, np.uint8), np.zeros(17, np.float32), (8,), 4, PerTensor())


def test_resolve_fills_the_axis_in() -> None:
    assert resolve(PerAxis(), out_axis=1, in_axis=0) == PerAxis(1)
    assert resolve(PerGroup(4), out_axis=1, in_axis=0) == PerGroup(4, 0)
    assert resolve(PerAxis(3), out_axis=1, in_axis=0) == PerAxis(3)
    assert resolve(PerTensor(), out_axis=1, in_axis=0) == PerTensor()
