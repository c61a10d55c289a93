"""What a recipe left in float, told in lines and in JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvmcomp.compress import CompressResult

__all__ = ["quantized_line", "skipped_json", "skipped_lines"]

_SHOWN = 8


def quantized_line(result: CompressResult | None) -> str | None:
    """How much of the arithmetic runs compressed; None without a recipe."""
    if result is None:
        return None
    left = sum(skip.share for skip in result.skipped)
    return f"{len(result.layers)} layers, {1 - left:.1%} of the MACs"


def skipped_lines(result: CompressResult | None) -> list[str]:
    """One line per operator left in float: the heaviest ones, then how many more."""
    if result is None:
        return []
    heaviest = sorted(result.skipped, key=lambda skip: -skip.macs)
    lines = [f"{s.name} ({s.op}, {s.share:.1%} of the MACs): {s.reason}" for s in heaviest[:_SHOWN]]
    if len(heaviest) > _SHOWN:
        lines.append(f"and {len(heaviest) - _SHOWN} more; --json lists them")
    return lines


def skipped_json(result: CompressResult | None) -> list[dict[str, object]]:
    """Every operator left in float with its reason and share of the MACs."""
    return [] if result is None else [asdict(skip) for skip in result.skipped]
