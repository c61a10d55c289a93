"""All rows, in the table's order."""

from __future__ import annotations

from acceptance import float_match, int8_exact, int8_steps, integer_share, sqnr
from acceptance.row import Row

__all__ = ["ROWS"]

ROWS: tuple[Row, ...] = (
    float_match.ROW,
    int8_exact.ROW,
    int8_steps.ROW,
    sqnr.ROW,
    integer_share.ROW,
)
