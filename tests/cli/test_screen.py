"""Progress bars as a terminal shows them, and tables of names that look like markup."""

from __future__ import annotations

import io
import re
import sys

import pytest

from tvmcomp.cli.screen import Screen, print_pairs, print_table, staged


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


def test_each_stage_has_its_own_count(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    with Screen(quiet=False).progress() as progress:
        step = staged(progress, "calibrate")
        step(7, 64)
        progress("check", 3, 5)
        progress("compile", 0, None)
    before, after = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue()).split("compile", 1)
    assert "calibrate" in before
    assert "3/5" in before
    assert "0/?" in after
    assert "5" not in after
    assert "ETA" in after


@pytest.mark.parametrize(("quiet", "is_terminal"), [(True, True), (False, False)])
def test_silence(
    quiet: bool, is_terminal: bool, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.isatty = lambda: is_terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    with Screen(quiet=quiet).progress() as progress:
        progress("work", 1, 2)
    assert terminal.getvalue() == ""


def test_tables_print_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "ms "), [("[bold]x[/bold]", 1), ("a/b:0", 22), ("n" * 100, "")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["[bold]x[/bold]", "1"]
    assert lines[2].endswith("22")
    assert lines[3].startswith("n" * 100)


def test_pairs_align_and_leave_out_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_pairs([("a", 1), ("long name", "x"), ("none", None), ("zero", 0)])
    assert capsys.readouterr().out == "a          1\nlong name  x\nzero       0\n"
