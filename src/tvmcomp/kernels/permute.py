"""Another axis order: nested loops over merged axes, runs along the last one.

y[h, t, :] = x[t, h, :]      [T, H, D] -> [H, T, D]: loops over h and t, whole runs of D
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.vector import Isa, Operand, byte_size, each, each_segment, i64

__all__ = ["Axis", "merged_axes", "permute"]

_PARALLEL_BYTES = 16 * 1024
# Fewer iterations of the outermost loop than this would leave threads idle.
_SHARES = 8


@dataclass(frozen=True)
class Axis:
    """An axis of y: its length, and its step in bytes in x and in y."""

    count: int
    x: int
    y: int


def merged_axes(
    shape: tuple[int, ...], x: Layout, y: Layout, perm: tuple[int, ...]
) -> tuple[Axis, ...]:
    """The axes of y, which holds x of `shape` permuted; neighbours both tensors walk evenly are one."""
    steps_x = x.steps(shape)
    target = tuple(shape[axis] for axis in perm)
    axes: list[Axis] = []
    for source, step in zip(perm, y.steps(target), strict=True):
        axis = Axis(shape[source], steps_x[source], step)
        if axis.count == 1:
            continue
        before = axes[-1] if axes else None
        if before is not None and (before.x, before.y) == (
            axis.count * axis.x,
            axis.count * axis.y,
        ):
            axes[-1] = Axis(before.count * axis.count, axis.x, axis.y)
        else:
            axes.append(axis)
    return tuple(axes) or (Axis(1, x.itemsize, y.itemsize),)


def permute(
    data: Operand,
    out: Operand,
    axes: tuple[Axis, ...],
    starts: tuple[int, int],
    dtypes: tuple[str, str],
    isa: Isa,
    value: Callable[[Expr, int], Expr],
) -> None:
    """y = value(x) along `axes`; `starts` are the offsets of the first elements of x and y."""
    sizes = byte_size(dtypes[0]), byte_size(dtypes[1])
    *outer, last = axes
    if last.y != sizes[1]:
        # y's elements lie apart (channels of a pitch): every one is a run of its own.
        outer, last = [*outer, last], Axis(1, sizes[0], sizes[1])
    total = last.count * sizes[1]
    for axis in outer:
        total *= axis.count
    shared = _shared(outer, total)

    def run(at: Expr, to: Expr) -> None:
        def contiguous(start: Expr, lanes: int) -> None:
            loaded = T.bind(data.load(at + start * i64(sizes[0]), dtypes[0], lanes))
            out.store(to + start * i64(sizes[1]), value(loaded, lanes), dtypes[1], lanes)

        def strided(start: Expr, lanes: int) -> None:
            first = T.bind(at + start * i64(last.x))
            loads = [
                T.bind(data.load(first + i64(lane * last.x), dtypes[0], 1)) for lane in range(lanes)
            ]
            order = [tirx.IntImm("int32", i) for i in range(lanes)]
            loaded = loads[0] if lanes == 1 else T.bind(tirx.Shuffle(loads, order))
            out.store(to + start * i64(sizes[1]), value(loaded, lanes), dtypes[1], lanes)

        # Lanes past the run would read past x and write on the next run, so tails are exact.
        if last.x == sizes[0]:
            width = isa.bytes if max(sizes) == 1 else isa.lanes
            each_segment(last.count, width, last.count, contiguous)
        else:
            each_segment(last.count, isa.lanes, last.count, strided)

    def nest(index: int, at: Expr, to: Expr) -> None:
        if index == len(outer):
            run(at, to)
            return
        axis = outer[index]

        def step(i: Expr) -> None:
            nest(index + 1, T.bind(at + i * i64(axis.x)), T.bind(to + i * i64(axis.y)))

        each(axis.count, step)

    def share(index: Expr) -> None:
        at, to = i64(starts[0]), i64(starts[1])
        for axis in reversed(outer[1:shared]):
            place = T.bind(tirx.FloorMod(index, i64(axis.count)))
            index = T.bind(tirx.FloorDiv(index, i64(axis.count)))
            at, to = at + place * i64(axis.x), to + place * i64(axis.y)
        if shared:
            at, to = at + index * i64(outer[0].x), to + index * i64(outer[0].y)
        nest(shared, T.bind(at), T.bind(to))

    count = 1
    for axis in outer[:shared]:
        count *= axis.count
    each(count, share, parallel=total >= _PARALLEL_BYTES)


def _shared(outer: list[Axis], total: int) -> int:
    """How many of the outermost axes the threads share: one, or as many as give each enough to do."""
    count, shared = 1, 0
    while shared < len(outer) and (shared == 0 or count < _SHARES):
        count *= outer[shared].count
        shared += 1
    return shared if total >= _PARALLEL_BYTES else min(shared, 1)
