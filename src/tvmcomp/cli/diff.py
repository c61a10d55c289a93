"""`tvmcomp diff`: two artifacts, or an artifact and its source, layer by layer; the first that departs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmcomp.cli.arguments import Artifact, existing
from tvmcomp.cli.screen import Answer, Screen, print_table

if TYPE_CHECKING:
    from tvmcomp.cli.diff_files import Compared

__all__ = ["diff"]

VERIFICATION_FAILED = 4
_LISTED = 8  # names of tensors one side lacks; `--json` has all


def diff(
    screen: Screen,
    artifact: Artifact,
    other: Annotated[
        Path,
        typer.Argument(
            metavar="OTHER", help="Another artifact, or the .onnx or .pt2 it was compiled from."
        ),
    ],
    input: Annotated[
        Path,
        typer.Option(
            "--input", "-i", metavar="IN.npz", help="Samples: keys are input names; a few will do."
        ),
    ],
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            metavar="T",
            min=0.0,
            help="What a layer may add: codes (default 0), a share of the largest float value "
            "(default 1e-4), or steps RMS where codes meet floats (default 8).",
        ),
    ] = None,
) -> Answer:
    """Name the first layer where two networks depart.

    Each layer is judged by the error it adds to the inputs it really had, so what an early layer does
    wrong is not blamed on later ones. Exit 4 if a layer departs.
    """
    from tvmcomp.cli.diff_files import diff_files

    with screen.progress() as progress:
        found = diff_files(
            existing(artifact),
            existing(other),
            existing(input),
            tolerance=tolerance,
            progress=progress,
        )
    first = found.diff.first
    data = {"artifact": str(artifact), "other": str(other), **found.to_dict()}
    departed = (
        "" if first is None else f"{artifact} departs from {other} at {first.layer} ({first.kind})"
    )
    return Answer(data, lambda: _show(found), departed, VERIFICATION_FAILED)


def _show(found: Compared) -> None:
    print_table(
        ("tensor", "kind", "compared as", "own error ", "own dB ", "total dB ", ""),
        [
            (
                row.tensor,
                row.kind,
                row.mode,
                "not finite" if row.own is None else f"{row.own:.4g}",
                *(
                    "-" if db is None else f"{db:.1f}"
                    for db in (row.own_sqnr_db, row.total_sqnr_db)
                ),
                "" if row.departs is None else f"departs: {row.departs}",
            )
            for row in found.diff.layers
        ],
    )
    first = found.diff.first
    count = found.diff.samples
    print(f"\n{count} sample{'s' if count > 1 else ''} against {found.against}")
    for note in found.notes:
        print(note)
    if found.diff.unmatched:
        names, more = found.diff.unmatched[:_LISTED], len(found.diff.unmatched) - _LISTED
        print(f"not in both: {', '.join(names)}{f' and {more} more' if more > 0 else ''}")
    if first is None:
        print("no layer departs")
    else:
        print(f"first departs: {first.layer} ({first.kind}): {first.departs}")
