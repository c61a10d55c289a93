"""docs/diff.md shows what the command prints; figures of float arithmetic may be another machine's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pages import blocks, play

_FIGURE = re.compile(r"(?<!\S)(\d+\.\d+|\d\d+)(?=,?(\s|$))")


def test_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (make,) = blocks("diff.md", "python")
    exec(make, {})
    sessions = [play(text, capsys) for text in blocks("diff.md")]
    assert len(sessions) == 4
    for played in (one for session in sessions for one in session):
        shown, printed = (
            [_FIGURE.sub("#", line) for line in lines] for lines in (played.shown, played.printed)
        )
        assert [line for line in shown if line not in printed] == [], played.command
        departs = any(line.startswith(("first departs", '"first": {')) for line in printed)
        assert played.code == (4 if departs else 0), played.command
