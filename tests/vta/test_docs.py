"""docs/vta.md does what it says: its program, its commands, its Python."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tvmcomp.cli.main import main

DOCS = Path(__file__).parents[2] / "docs" / "vta.md"


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def test_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text, session = (b for b in blocks("") if b.startswith((".dram", "$")))
    Path("multiply.vta").write_text(text)
    make, read, build = blocks("python")
    names: dict = {}
    exec(make, names)
    printed: list[str] = []
    for line in session.splitlines():
        if not line.startswith("$ "):
            printed.append(" ".join(line.split()))
            continue
        assert main(shlex.split(line)[2:]) == 0, line
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in printed if line not in said] == []
    exec(read, names)
    exec(build, {})
    assert Path("multiply.svg").read_text().startswith("<svg")
