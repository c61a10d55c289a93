"""Codes of 2 to 8 bits packed without gaps: code i occupies bits [i*bits, (i+1)*bits) of a little-endian bit stream."""

from __future__ import annotations

import numpy as np

__all__ = ["code_range", "pack", "packed_bytes", "unpack"]


def code_range(bits: int, signed: bool) -> tuple[int, int]:
    """Lowest and highest code."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits occupy."""
    return (count * bits + 7) // 8


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """int8 or uint8 codes -> uint8 [packed_bytes]; signed codes keep their low bits (two's complement)."""
    flat = np.ascontiguousarray(codes).reshape(-1).view(np.uint8)
    if bits == 8:
        return flat.copy()
    stream = np.unpackbits(flat.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(stream.reshape(-1), bitorder="little")


def unpack(packed: np.ndarray, count: int, bits: int, signed: bool) -> np.ndarray:
    """uint8 [packed_bytes] -> `count` codes, int8 if `signed`, else uint8."""
    if bits == 8:
        return packed.view(np.int8 if signed else np.uint8).copy()
    stream = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    codes = np.packbits(stream, axis=1, bitorder="little").reshape(-1)
    if not signed:
        return codes
    # Sign extension: the code's top bit moves to bit 7 and is shifted back arithmetically.
    return (codes << (8 - bits)).view(np.int8) >> (8 - bits)
