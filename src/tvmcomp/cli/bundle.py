"""`tvmcomp bundle`: an artifact with its runtime in one folder for a machine without tvmcomp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tvmcomp.cli.arguments import Artifact, existing
from tvmcomp.cli.screen import Answer, Screen, print_pairs

__all__ = ["bundle"]


def bundle(
    screen: Screen,
    artifact: Artifact,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="A folder that is not there yet."),
    ],
) -> Answer:
    """Lay an artifact, the runtime libraries and a loader into one folder that can be moved."""
    from tvmcomp.runtime import bundle as write_bundle

    with screen.progress() as progress:
        progress("bundle", 0, None)
        folder = write_bundle(existing(artifact), output)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Answer(
        {"artifact": str(artifact), "folder": str(folder), "bytes": size},
        lambda: print_pairs([("wrote", folder), ("bytes", f"{size:,}")]),
    )
