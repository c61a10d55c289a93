"""Where the data folders live: inside the installed package, or beside `src/` in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tvmcomp.errors import TvmcompError

__all__ = ["DataFolder", "data_folder"]

DataFolder = Literal["targets", "schedules", "recipes", "tuning_logs"]

_PACKAGE = Path(__file__).resolve().parent


def data_folder(name: DataFolder) -> Path:
    """The folder `name`: `tvmcomp/_data/NAME` in a wheel, `NAME` at the top of a checkout."""
    for folder in (_PACKAGE / "_data" / name, _PACKAGE.parents[1] / name):
        if folder.is_dir():
            return folder
    raise TvmcompError(
        f"data folder {name!r} is missing from the installation at {_PACKAGE}; reinstall tvmcomp"
    )
