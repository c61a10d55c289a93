"""Every kernel with its rows shared among two threads: elsewhere tensors are below that threshold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
KERNELS = 22


@pytest.mark.parametrize(
    "row",
    ["generic", pytest.param("vnni", marks=pytest.mark.isa("avx512vnni", "avx512vbmi"))],
)
def test_rows_shared_among_threads(row):
    path = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    done = subprocess.run(
        [sys.executable, str(TESTS / "parallel_kernels.py"), row],
        env={**os.environ, "PYTHONPATH": path, "TVM_NUM_THREADS": "2", "TVM_BIND_THREADS": "0"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == KERNELS
    assert all(line.endswith(f" {row} 2") for line in lines), "the pool must have two threads"
