"""`tvmcomp bundle`: an artifact with its runtime in one folder for a machine without tvmcomp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tvmcomp.cli.arguments import Artifact, DryRun, existing
from tvmcomp.cli.screen import Answer, Screen, print_pairs

__all__ = ["bundle"]


def bundle(
    screen: Screen,
    artifact: Artifact,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="A folder that is not there yet."),
    ],
    dry_run: DryRun = False,
) -> Answer:
    """Put an artifact in a folder to carry.

    The folder holds the runtime too: a machine with Python and numpy runs it.
    """
    from tvmcomp.runtime.bundle import bundle as write_bundle
    from tvmcomp.runtime.bundle import check_bundle

    if dry_run:
        check_bundle(existing(artifact), output)
        return Answer(
            {"artifact": str(artifact), "folder": None, "bytes": None},
            lambda: print(f"ok: {output} would be written"),
        )
    with screen.progress() as progress:
        progress("bundle", 0, None)
        folder = write_bundle(existing(artifact), output)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Answer(
        {"artifact": str(artifact), "folder": str(folder), "bytes": size},
        lambda: print_pairs([("wrote", folder), ("bytes", f"{size:,}")]),
    )
