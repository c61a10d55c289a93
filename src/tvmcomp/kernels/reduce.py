"""Building blocks of kernels that reduce rows: whole vectors with the last one masked, sums in registers."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.kernels.vector import each, i64, pure, splat

__all__ = ["Accumulator", "across", "each_chunk", "inside"]

_UNROLL = 16  # rows of at most this many vectors are written out


def each_chunk(count: int, lanes: int, body: Callable[[Expr, int], None]) -> None:
    """body(start, valid) for every vector of `lanes` elements that holds some of `count`; in the last, `valid` of them.

    There is slack behind every tensor, so a vector may be loaded whole.
    """
    full, rest = divmod(count, lanes)
    if full <= _UNROLL:
        for index in range(full):
            body(i64(index * lanes), lanes)
    else:
        each(full, lambda index: body(T.bind(index * i64(lanes)), lanes))
    if rest:
        body(i64(full * lanes), rest)


def inside(value: Expr, valid: int, lanes: int, dtype: str, neutral: int) -> Expr:
    """`value` with `neutral` in every lane from `valid` on."""
    if valid == lanes:
        return value
    index = tirx.Ramp(tirx.IntImm("int32", 0), tirx.IntImm("int32", 1), lanes)
    keep = index < splat(valid, lanes, "int32")
    return tirx.Select(keep, value, splat(neutral, lanes, dtype))


def across(kind: str, value: Expr, dtype: str, lanes: int) -> Expr:
    """All lanes as one: `kind` is add, smax or umax."""
    if lanes == 1:
        return value
    letter = f"v{lanes}i{8 if dtype in ('int8', 'uint8') else 32}"
    return pure(dtype, 1, f"llvm.vector.reduce.{kind}.{letter}", value)


class Accumulator:
    """A vector that a loop updates; of constant size, so that it becomes a register."""

    def __init__(self, initial: int, lanes: int, dtype: str = "int32") -> None:
        self._buffer = T.alloc_buffer((lanes,), dtype, scope="global")
        self._all = [i64(0) if lanes == 1 else tirx.Ramp(i64(0), i64(1), lanes)]
        T.buffer_store(self._buffer, splat(initial, lanes, dtype), self._all)

    @property
    def value(self) -> Expr:
        return tirx.BufferLoad(self._buffer, self._all)

    def set(self, value: Expr) -> None:
        T.buffer_store(self._buffer, value, self._all)
