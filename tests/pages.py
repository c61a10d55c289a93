"""Pages of docs/ as tests: their blocks of code, and their sessions played again."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from tvmcomp.cli.main import main

DOCS = Path(__file__).parents[1] / "docs"


@dataclass(frozen=True)
class Played:
    """One command of a session: its exit code, the lines the page shows of its output, and all it printed there."""

    command: str
    code: int
    shown: tuple[str, ...]
    printed: tuple[str, ...]


def blocks(page: str, language: str = "") -> list[str]:
    """The fenced blocks of docs/`page` in `language`, in order."""
    text = (DOCS / page).read_text()
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]


def play(session: str, capsys: pytest.CaptureFixture[str]) -> list[Played]:
    """Run each `$ tvmcomp ...` of a session; white space in lines is folded."""
    played = []
    for part in session.split("$ ")[1:]:
        command, *lines = part.splitlines()
        capsys.readouterr()
        code = main(shlex.split(command)[1:])
        said = capsys.readouterr().out.splitlines()
        played.append(Played(command, code, _folded(lines), _folded(said)))
    return played


def _folded(lines: list[str]) -> tuple[str, ...]:
    return tuple(" ".join(line.split()) for line in lines)
