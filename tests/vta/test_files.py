"""Output files are there whole or not at all."""

from __future__ import annotations

import os

import pytest

from tvmcomp.errors import VtaError
from tvmcomp.vta.files import write_file


def test_what_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "f"
    write_file(file, [b"old"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VtaError, match="f: cannot be written: No space left on device"):
        write_file(file, [b"new", b"er"])
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
    monkeypatch.undo()
    write_file(file, [b"new", b"er"])
    assert file.read_bytes() == b"newer"


def test_a_link_stays_and_its_target_is_written(tmp_path):
    link, file = tmp_path / "link", tmp_path / "f"
    link.symlink_to(file)
    write_file(link, [b"x"])
    assert link.is_symlink()
    assert file.read_bytes() == b"x"
