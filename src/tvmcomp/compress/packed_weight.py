"""The three forms a compressed weight can take, as packed numpy arrays with their float32 meaning.

A new compression method produces one of these; `weight_form.py` puts them into a module.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np

from tvmcomp.compress.granularity import Granularity, PerAxis, PerTensor
from tvmcomp.compress.packing import pack, packed_bytes, unpack
from tvmcomp.errors import QuantizeError

__all__ = ["BlockSparseWeight", "LookupWeight", "UniformWeight", "WeightForm"]


@dataclass(frozen=True, eq=False)
class UniformWeight:
    """w = scale * (code - zero_point), every value float32.

    packed:     uint8 [ceil(n*bits/8)], `packing.pack` of the row-major codes.
    scale:      float32, of `granularity.parameter_shape(shape)`.
    zero_point: same shape, an integer or float32 array; None is zero everywhere.
    signed:     codes lie in [-2^(bits-1), 2^(bits-1)), else in [0, 2^bits).
    """

    packed: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray | None
    shape: tuple[int, ...]
    bits: int
    signed: bool
    granularity: Granularity

    def __post_init__(self) -> None:
        _check_packed(self.packed, self.shape, self.bits)
        wanted = self.granularity.parameter_shape(self.shape)
        _check_array("scale", self.scale, wanted, ("float32",))
        if self.zero_point is not None:
            _check_array("zero_point", self.zero_point, wanted, ("int8", "uint8", "float32"))

    @classmethod
    def from_codes(
        cls,
        codes: np.ndarray,
        scale: np.ndarray,
        zero_point: np.ndarray | None,
        *,
        bits: int,
        granularity: Granularity,
    ) -> UniformWeight:
        """From int8 (signed) or uint8 codes of the logical shape."""
        packed = _packed_codes(codes, bits)
        signed = codes.dtype == np.int8
        return cls(packed, scale, zero_point, codes.shape, bits, signed, granularity)

    @property
    def nbytes(self) -> int:
        """Bytes stored: codes, scales and zero points."""
        zero_points = 0 if self.zero_point is None else self.zero_point.nbytes
        return self.packed.nbytes + self.scale.nbytes + zero_points

    def codes(self) -> np.ndarray:
        """The codes in the logical shape, int8 if signed, else uint8."""
        return unpack(self.packed, prod(self.shape), self.bits, self.signed).reshape(self.shape)

    def centered(self) -> np.ndarray | None:
        """code - zero_point in the logical shape: int8, or int16 where that leaves int8; None if not whole."""
        codes = self.codes()
        if self.zero_point is None:
            steps = codes.astype(np.int16)
        elif self.zero_point.dtype.kind == "f":
            return None
        else:
            points = self.zero_point.astype(np.int16)
            steps = codes.astype(np.int16) - self.granularity.expand(points, self.shape)
        narrow = steps.size == 0 or (steps.min() >= -128 and steps.max() <= 127)
        return steps.astype(np.int8) if narrow else steps

    def dequantized(self) -> np.ndarray:
        """The float32 weight: float32(code) - zero_point, one rounding, times scale, one rounding."""
        values = self.codes().astype(np.float32)
        if self.zero_point is not None:
            values -= self.granularity.expand(self.zero_point.astype(np.float32), self.shape)
        return values * self.granularity.expand(self.scale, self.shape)

    def scale_per_channel(self, axis: int) -> np.ndarray | None:
        """float32 [shape[axis]] if w is scale[channel] * `centered`, else None (groups, another axis)."""
        if isinstance(self.granularity, PerTensor):
            return np.full(self.shape[axis], self.scale, np.float32)
        return self.scale if self.granularity == PerAxis(axis) else None


@dataclass(frozen=True, eq=False)
class LookupWeight:
    """w = table[..., code], every value float32.

    packed: uint8 [ceil(n*bits/8)], `packing.pack` of the row-major codes, which are unsigned.
    table:  float32, of `granularity.parameter_shape(shape)` + [entries], entries <= 2^bits.
    """

    packed: np.ndarray
    table: np.ndarray
    shape: tuple[int, ...]
    bits: int
    granularity: Granularity

    def __post_init__(self) -> None:
        _check_packed(self.packed, self.shape, self.bits)
        entries = self.table.shape[-1] if self.table.ndim else 0
        if not 1 <= entries <= 1 << self.bits:
            raise QuantizeError(
                f"a table of {entries} entries does not fit codes of {self.bits} bits; "
                f"use 1 to {1 << self.bits} entries"
            )
        wanted = (*self.granularity.parameter_shape(self.shape), entries)
        _check_array("table", self.table, wanted, ("float32",))

    @classmethod
    def from_codes(
        cls, codes: np.ndarray, table: np.ndarray, *, bits: int, granularity: Granularity
    ) -> LookupWeight:
        """From uint8 codes of the logical shape."""
        entries = table.shape[-1] if table.ndim else 0
        if codes.dtype != np.uint8 or (codes.size and int(codes.max()) >= entries):
            raise ValueError(f"codes must be uint8 below {entries}, got {codes.dtype}")
        return cls(_packed_codes(codes, bits), table, codes.shape, bits, granularity)

    @property
    def nbytes(self) -> int:
        """Bytes stored: codes and tables."""
        return self.packed.nbytes + self.table.nbytes

    def codes(self) -> np.ndarray:
        """The codes in the logical shape, uint8."""
        return unpack(self.packed, prod(self.shape), self.bits, signed=False).reshape(self.shape)

    def dequantized(self) -> np.ndarray:
        """The float32 weight."""
        entries = self.table.shape[-1]
        tables = self.table.reshape(-1, entries)
        wanted = self.granularity.parameter_shape(self.shape)
        numbers = np.arange(len(tables)).reshape(wanted)
        # Which table each element uses, as an array that broadcasts against the codes.
        return tables[self.granularity.expand(numbers, self.shape), self.codes()]


@dataclass(frozen=True, eq=False)
class BlockSparseWeight:
    """w is zero outside the stored blocks; w = scale * value inside, scale per tensor or per axis.

    values: float32 or int8 [stored, *block].
    index:  unsigned [stored], strictly increasing: row-major block number in the grid shape/block.
    scale:  float32 of `granularity.parameter_shape(shape)`; None is 1.
    """

    values: np.ndarray
    index: np.ndarray
    scale: np.ndarray | None
    shape: tuple[int, ...]
    granularity: Granularity

    def __post_init__(self) -> None:
        if self.values.dtype not in (np.float32, np.int8):
            raise ValueError(f"values must be float32 or int8, got {self.values.dtype}")
        blocks = prod(block_grid(self.shape, self.block))
        _check_array("index", self.index, self.values.shape[:1], ("uint8", "uint16", "uint32"))
        numbers = self.index.astype(np.int64)
        if numbers.size and (numbers[-1] >= blocks or np.any(np.diff(numbers) <= 0)):
            raise ValueError(f"index must increase strictly and stay below {blocks} blocks")
        if self.scale is not None:
            wanted = self.granularity.parameter_shape(self.shape)
            _check_array("scale", self.scale, wanted, ("float32",))

    @classmethod
    def from_dense(
        cls,
        dense: np.ndarray,
        block: tuple[int, ...],
        scale: np.ndarray | None = None,
        granularity: Granularity | None = None,
    ) -> BlockSparseWeight:
        """Of a float32 or int8 array, storing the blocks that are not all zero."""
        grid = block_grid(dense.shape, block)
        blocks = _to_blocks(dense, block, grid)
        kept = np.flatnonzero(blocks.reshape(len(blocks), -1).any(axis=1))
        index = kept.astype(np.min_scalar_type(max(len(blocks) - 1, 0)))
        return cls(blocks[kept], index, scale, dense.shape, granularity or PerTensor())

    @property
    def block(self) -> tuple[int, ...]:
        """Shape of one block."""
        return self.values.shape[1:]

    @property
    def density(self) -> float:
        """Share of blocks that are stored."""
        return len(self.values) / prod(block_grid(self.shape, self.block))

    @property
    def nbytes(self) -> int:
        """Bytes stored: values, index and scales."""
        scales = 0 if self.scale is None else self.scale.nbytes
        return self.values.nbytes + self.index.nbytes + scales

    def dense(self) -> np.ndarray:
        """The values in the logical shape, zeros in place, without the scale."""
        grid = block_grid(self.shape, self.block)
        blocks = np.zeros((prod(grid), *self.block), self.values.dtype)
        blocks[self.index] = self.values
        rank = len(grid)
        order = [axis for i in range(rank) for axis in (i, rank + i)]
        return blocks.reshape(*grid, *self.block).transpose(order).reshape(self.shape)

    def dequantized(self) -> np.ndarray:
        """The float32 weight."""
        values = self.dense().astype(np.float32)
        return (
            values
            if self.scale is None
            else values * self.granularity.expand(self.scale, self.shape)
        )


WeightForm: TypeAlias = UniformWeight | LookupWeight | BlockSparseWeight


def block_grid(shape: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    """Blocks along each axis."""
    if len(block) != len(shape) or any(b < 1 or n % b for n, b in zip(shape, block, strict=True)):
        raise QuantizeError(
            f"block {list(block)} does not tile a weight of shape {list(shape)}; "
            "each side must divide its axis"
        )
    return tuple(n // b for n, b in zip(shape, block, strict=True))


def _to_blocks(dense: np.ndarray, block: tuple[int, ...], grid: tuple[int, ...]) -> np.ndarray:
    split = dense.reshape([n for pair in zip(grid, block, strict=True) for n in pair])
    order = [*range(0, split.ndim, 2), *range(1, split.ndim, 2)]
    return np.ascontiguousarray(split.transpose(order).reshape(-1, *block))


def _packed_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    if codes.dtype not in (np.int8, np.uint8):
        raise ValueError(f"codes must be int8 or uint8, got {codes.dtype}")
    packed = pack(codes, bits)
    restored = unpack(packed, codes.size, bits, signed=codes.dtype == np.int8)
    if not np.array_equal(restored, codes.reshape(-1)):
        raise ValueError(f"codes from {codes.min()} to {codes.max()} do not fit {bits} bits")
    return packed


def _check_packed(packed: np.ndarray, shape: tuple[int, ...], bits: int) -> None:
    if not 2 <= bits <= 8:
        raise QuantizeError(f"weights of {bits} bits have no packed form; use 2 to 8 bits")
    _check_array("packed codes", packed, (packed_bytes(prod(shape), bits),), ("uint8",))


def _check_array(
    what: str, array: np.ndarray, shape: tuple[int, ...], dtypes: tuple[str, ...]
) -> None:
    if array.shape != shape or array.dtype.name not in dtypes:
        raise ValueError(
            f"{what} must be {' or '.join(dtypes)} {list(shape)}, "
            f"got {array.dtype.name} {list(array.shape)}"
        )
