"""The hand-built network as a payload and as a file; a subprocess that sees only what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tvmcomp
from runtime import tiny
from tvmcomp.artifact import Payload, write_artifact

SOURCES = Path(tvmcomp.__file__).parents[1]


@pytest.fixture(scope="session")
def tiny_payload() -> Payload:
    return tiny.payload()


@pytest.fixture(scope="session")
def tiny_file(tiny_payload: Payload, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all tests: do not change it."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.tvmcomp"
    write_artifact(path, tiny_payload)
    return path


@pytest.fixture
def run_script() -> Callable[..., str]:
    """Runs Python code in a fresh process with tvmcomp importable; returns its output."""

    def run(code: str, *args: object, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, args)],
            env={**os.environ, "PYTHONPATH": str(SOURCES), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
