"""Arguments and options that several verbs share, and their parsing."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from tvmcomp.errors import DataError, UsageError

__all__ = [
    "Artifact",
    "Calibration",
    "DryRun",
    "Eval",
    "InputShapes",
    "Labels",
    "MaxDrop",
    "Model",
    "OptionalRecipe",
    "TargetName",
    "Threads",
    "check_output",
    "existing",
    "parse_shapes",
    "refuse_same",
]


def _complete_target(incomplete: str) -> list[str]:
    from tvmcomp.target import Target

    return [name for name in ("host", *Target.names()) if name.startswith(incomplete)]


Model: TypeAlias = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="An .onnx file, or a .pt2 saved by torch.export."),
]
Artifact: TypeAlias = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="A .tvmcomp file made by `compile`.")
]
TargetName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--target",
        "-t",
        metavar="TARGET",
        autocompletion=_complete_target,
        help="host, a name from `targets list`, or a .toml file of your own.",
    ),
]
OptionalRecipe: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        metavar="RECIPE",
        help="int8, int8-dynamic or a .toml file; without it: float32.",
    ),
]
Calibration: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        "-c",
        metavar="DATA",
        help="Samples for a recipe: an .npz whose keys are input names (axis 0 counts samples), "
        "or a folder of .npy files.",
    ),
]
Eval: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--eval",
        metavar="DATA",
        help="Report accuracy, agreement and SQNR against the source: an .npz of samples with class "
        "ids under 'labels', or package.module:function, which gets predict(inputs) -> outputs and "
        "returns a score or a dict of scores.",
    ),
]
Labels: TypeAlias = Annotated[
    str | None,
    typer.Option("--labels", metavar="KEY", help="The key of the class ids in --eval's .npz."),
]
MaxDrop: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="POINTS",
        min=0.0,
        help="Exit 7 if accuracy falls by more percentage points (a function's first score: by more "
        "in its own units).",
    ),
]
InputShapes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="NAME=D,D,...",
        help="Fix an input's shape, as in x=1,3,224,224; once per input.",
    ),
]
Threads: TypeAlias = Annotated[
    int, typer.Option("--threads", min=1, help="Threads one call may use.")
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Check everything that can be checked, write nothing.")
]


def parse_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """`["x=1,3,224,224"]` -> `{"x": (1, 3, 224, 224)}`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        # The last "=": names of tensors may hold one, sizes cannot.
        name, _, sizes = text.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = ()
        if not name or not shape or min(shape) < 1:
            raise UsageError(
                f"--input-shape {text!r} is not NAME=D,D,... with positive sizes; "
                "write it like x=1,3,224,224"
            )
        if name in shapes:
            raise UsageError(f"--input-shape names {name!r} twice; give each input once")
        shapes[name] = shape
    return shapes


def existing(path: Path) -> Path:
    """`path` if there is something; else an error that knows the neighbours' names."""
    if path.exists():
        return path
    error = DataError(f"{path}: no such file; check the path")
    folder = path.parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    for name in get_close_matches(path.name, names, n=1):
        error.add_note(f"did you mean {folder / name}?")
    raise error


def check_output(path: Path) -> None:
    """Refuse, before any work, an output path that cannot become a file."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the path of a file to write")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: folder {path.parent} does not exist; make it first")


def refuse_same(*paths: Path | None) -> None:
    """One file named twice is a slip that would cost the first of the two."""
    seen: set[Path] = set()
    for path in paths:
        # Devices such as /dev/null may be named as often as one likes.
        if path is None or (path.exists() and not path.is_file()):
            continue
        if path.resolve() in seen:
            raise UsageError(f"{path} is named twice; give each file a name of its own")
        seen.add(path.resolve())
