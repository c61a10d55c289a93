"""The halo of a tensor, which its producer writes on every run: the arena's memory is reused."""

from __future__ import annotations

from tvm.ir import Expr

from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.vector import Operand, each, each_segment, i64, splat

__all__ = ["fill", "write_halo"]

_WIDTH = 64


def fill(target: Operand, offset: Expr, count: int, byte: int | Expr) -> None:
    """Set `count` bytes at `offset` to `byte`."""
    each_segment(
        count,
        _WIDTH,
        count,
        lambda start, lanes: target.store(
            offset + start, splat(byte, lanes, "uint8"), "uint8", lanes
        ),
    )


def write_halo(target: Operand, layout: Layout, value: int | Expr) -> None:
    """Set the halo of `layout` to code `value`: the zero point, or 0 for floats; a uint8 if computed at run time."""
    if layout.halo == 0:
        return
    byte = value & 255 if isinstance(value, int) else value
    side = layout.halo * layout.pixel
    edge = layout.halo * layout.row + side

    def image(n: Expr) -> None:
        # The right halo of one row and the left halo of the next are neighbours in memory.
        fill(target, n * i64(layout.image), edge, byte)
        each(
            layout.height - 1,
            lambda h: fill(target, layout.offset(n, h, i64(layout.width)), 2 * side, byte),
        )
        last = layout.offset(n, i64(layout.height - 1), i64(layout.width))
        fill(target, last, edge, byte)

    each(layout.batch, image)
