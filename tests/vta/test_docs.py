"""docs/vta.md does what it says: its program, its commands, its Python."""

from __future__ import annotations

from pathlib import Path

from pages import blocks, play


def test_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text, session = (b for b in blocks("vta.md") if b.startswith((".dram", "$")))
    Path("multiply.vta").write_text(text)
    make, read, build = blocks("vta.md", "python")
    names: dict = {}
    exec(make, names)
    for played in play(session, capsys):
        assert played.code == 0, played.command
        assert [line for line in played.shown if line not in played.printed] == []
    exec(read, names)
    exec(build, {})
    assert Path("multiply.svg").read_text().startswith("<svg")
