"""`tvmcomp quickstart`: train, compress, compile, measure and save a small network in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmcomp.cli.screen import Answer, Screen, print_table

if TYPE_CHECKING:
    from tvmcomp.cli.quickstart_digits import Quickstart

__all__ = ["quickstart"]


def quickstart(
    screen: Screen,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where digits.tvmcomp is written.")
    ] = Path(),
    seed: Annotated[int, typer.Option("--seed", help="Of the split and of the training.")] = 0,
) -> Answer:
    """Try it all on a small CNN, in minutes.

    Trains on scikit-learn's digits, compresses to int8, compiles, measures, saves digits.tvmcomp.
    """
    from tvmcomp.cli.quickstart_digits import quickstart as run

    with screen.progress() as progress:
        result = run(folder, seed=seed, progress=progress)
    return Answer(result.to_dict(), lambda: _show(result), missed="; ".join(result.missed))


def _show(result: Quickstart) -> None:
    rows = (*result.peers, result.float32, result.int8)
    base = rows[0].median_ms
    print_table(
        ("", "precision", "accuracy ", "ms ", "p10 ", "p90 ", "speed ", "parameters ", "file "),
        [
            (
                row.name,
                row.precision,
                f"{row.accuracy:.2%} of {row.samples}",
                *(_figure(value, "{:.4f}") for value in (row.median_ms, row.p10_ms, row.p90_ms)),
                _figure(base and row.median_ms and base / row.median_ms, "{:.2f}x"),
                f"{row.params_bytes:,} B",
                _figure(row.file_bytes, "{:,} B"),
            )
            for row in rows
        ],
    )
    for row in rows:
        if row.reason is not None:
            print(f"{row.name} {row.precision} was not timed: {row.reason}")
    print(
        f"\nlatency of one digit on one thread, median with p10 and p90; {result.seconds:.0f} s in all"
    )
    print(f"wrote {result.artifact}\n\nnext:")
    for command in result.next_commands:
        print(f"  {command}")


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
