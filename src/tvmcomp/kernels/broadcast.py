"""Operands of a smaller shape, read beside a tensor they broadcast to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.vector import Operand, each, each_row, each_segment, i64, splat

__all__ = ["Broadcast", "each_broadcast"]


@dataclass(frozen=True)
class Broadcast:
    """Where the row of an operand of shape `small` lies that belongs to a pixel of a tensor of shape `whole`.

    layout: the operand's; its last axis is as long as the tensor's, or 1 (`single`).
    """

    small: tuple[int, ...]
    whole: tuple[int, ...]
    layout: Layout

    @classmethod
    def of(cls, small: tuple[int, ...], whole: tuple[int, ...], layout: Layout) -> Broadcast | None:
        """None if `small` does not broadcast to `whole`."""
        rank = max(4, len(whole))
        small, whole = ((1,) * (rank - len(shape)) + shape for shape in (small, whole))
        fits = len(small) == rank and all(s in (1, w) for s, w in zip(small, whole, strict=True))
        return cls(small, whole, layout) if fits else None

    @property
    def single(self) -> bool:
        """One element for the whole row."""
        return self.small[-1] == 1 and self.whole[-1] > 1

    def offset(self, n: Expr, h: Expr, w: Expr) -> Expr:
        """Byte offset in the operand, for the tensor's folded batch index n, h and w."""
        step = self.layout
        h_step = step.row if self.small[-3] > 1 else 0
        w_step = step.pixel if self.small[-2] > 1 else 0
        at = i64(step.offset(0, 0, 0))
        for stride, index in ((h_step, h), (w_step, w)):
            if stride:
                at = at + index * i64(stride)
        return at + self._batch(n)

    def load(self, data: Operand, row: Expr, start: Expr, dtype: str, lanes: int) -> Expr:
        """The elements beside channels `start` on, in the row at `row`."""
        if self.single:
            return splat(T.bind(data.load(row, dtype, 1)), lanes, dtype)
        return data.load(row + start * i64(self.layout.itemsize), dtype, lanes)

    def _batch(self, n: Expr) -> Expr:
        """Leading axes are folded into one; those of the operand that are 1 do not move."""
        lead, small = self.whole[:-3], self.small[:-3]
        if lead == small:
            return n * i64(self.layout.image)
        at: Expr = i64(0)
        for axis, length in enumerate(lead):
            if small[axis] == 1:
                continue
            index = tirx.FloorDiv(n, i64(prod(lead[axis + 1 :])))
            if axis:
                index = tirx.FloorMod(index, i64(length))
            at = at + index * i64(prod(small[axis + 1 :]) * self.layout.image)
        return T.bind(at)


# body(offset in y, offset in x, rows of the others, channel, lanes)
Body = Callable[[Expr, Expr, list[Expr], Expr, int], None]


def each_broadcast(
    y: Layout, x: Layout, others: Sequence[Broadcast], width: int, body: Body
) -> None:
    """`body` for every vector of at most `width` channels of y, beside x of the same dims and smaller `others`."""

    def row(n: Expr, h: Expr) -> None:
        base_y, base_x = (T.bind(place.offset(n, h, i64(0))) for place in (y, x))

        def pixel(w: Expr) -> None:
            to, at = T.bind(base_y + w * i64(y.pixel)), T.bind(base_x + w * i64(x.pixel))
            rows = [T.bind(other.offset(n, h, w)) for other in others]

            def segment(start: Expr, lanes: int) -> None:
                y_at, x_at = (
                    base + start * i64(place.itemsize) for base, place in ((to, y), (at, x))
                )
                body(y_at, x_at, rows, start, lanes)

            each_segment(y.channels, width, y.pitch, segment)

        each(y.width, pixel)

    each_row(y, row)
