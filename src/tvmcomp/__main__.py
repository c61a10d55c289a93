"""`python -m tvmcomp`."""

from __future__ import annotations

from tvmcomp.cli.main import run

if __name__ == "__main__":
    run()
