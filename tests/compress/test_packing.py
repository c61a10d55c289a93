"""Packing: exact for every width, without gaps, in the documented bit order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcomp.compress.packing import code_range, pack, packed_bytes, unpack


@given(bits=st.integers(2, 8), signed=st.booleans(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_round_trip(bits: int, signed: bool, data: st.DataObject) -> None:
    low, high = code_range(bits, signed)
    codes = data.draw(st.lists(st.integers(low, high), max_size=40))
    array = np.array(codes, np.int8 if signed else np.uint8)
    packed = pack(array, bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (packed_bytes(len(codes), bits),)
    restored = unpack(packed, len(codes), bits, signed)
    assert restored.dtype == array.dtype
    np.testing.assert_array_equal(restored, array)


@given(bits=st.integers(2, 8), data=st.data())
@settings(max_examples=100, deadline=None)
def test_bit_order_by_hand(bits: int, data: st.DataObject) -> None:
    """Code i occupies bits [i*bits, (i+1)*bits) of the bytes read as one little-endian number."""
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=20))
    number = sum(code << (i * bits) for i, code in enumerate(codes))
    expected = number.to_bytes(packed_bytes(len(codes), bits), "little")
    assert pack(np.array(codes, np.uint8), bits).tobytes() == expected


@pytest.mark.parametrize(("bits", "size"), [(2, 25), (3, 38), (4, 50), (5, 63), (7, 88), (8, 100)])
def test_a_code_takes_its_bits_and_no_more(bits: int, size: int) -> None:
    assert pack(np.zeros(100, np.uint8), bits).nbytes == size


def test_ranges() -> None:
    assert code_range(4, signed=True) == (-8, 7)
    assert code_range(3, signed=False) == (0, 7)


def test_packing_copies() -> None:
    codes = np.arange(8, dtype=np.uint8)
    packed = pack(codes, 8)
    packed[:] = 0
    assert codes[3] == 3
