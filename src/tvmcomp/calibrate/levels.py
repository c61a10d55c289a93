"""How many levels a range may be cut into."""

from __future__ import annotations

from tvmcomp.errors import CalibrationError

__all__ = ["check_levels"]


def check_levels(levels: int, least: int, *, symmetric: bool) -> None:
    """Raise CalibrationError for fewer than `least`, or for an even number where zero is in the middle."""
    if levels < least or (symmetric and levels % 2 == 0):
        raise CalibrationError(
            f"{levels} levels cannot be {'symmetric' if symmetric else 'uniform'}; "
            f"use at least {least}, and an odd number for a symmetric range"
        )
