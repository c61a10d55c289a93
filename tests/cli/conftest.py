"""The command in this process and in its own; a hand-built artifact to use it on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tvmcomp
from runtime import tiny
from tvmcomp.artifact import write_artifact
from tvmcomp.cli.main import main

SOURCES = Path(tvmcomp.__file__).parents[1]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """All of stdout, which has to be one JSON object of schema 1."""
        data = json.loads(self.out)
        assert data["schema"] == 1
        assert isinstance(data, dict)
        return data

    def failed(self, code: int) -> str:
        """The one line of an error, which came without a traceback and nothing on stdout."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if not line.startswith("hint: ")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command in this process."""

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture
def spawn() -> Callable[..., Done]:
    """Runs the command, or with `code` other Python code, in a process of its own."""

    def run(*arguments: object, code: str | None = None, **environment: str) -> Done:
        program = ["-m", "tvmcomp"] if code is None else ["-c", code]
        done = subprocess.run(
            [sys.executable, *program, *map(str, arguments)],
            # Buffered, as users run it: what is still in a buffer must not follow the JSON.
            env={**os.environ, "PYTHONUNBUFFERED": "", "PYTHONPATH": str(SOURCES), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hand-built network: inputs x [8, 16], k [8, 16], gain []; shared by all tests."""
    path = tmp_path_factory.mktemp("artifact") / "tiny.tvmcomp"
    write_artifact(path, tiny.payload())
    return path


@pytest.fixture
def damaged(artifact: Path, tmp_path: Path) -> Path:
    """The same with one bit flipped in the middle."""
    data = bytearray(artifact.read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "damaged.tvmcomp"
    path.write_bytes(data)
    return path
