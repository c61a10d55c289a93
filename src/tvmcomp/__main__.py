"""`python -m tvmcomp`, and the `tvmcomp` script."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

__all__ = ["run"]

_INTERRUPTED = 130


def run() -> NoReturn:
    """The command line; an interrupt is one line and exit code 130 from the first import on."""
    try:
        from tvmcomp.cli.main import main
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    code = main(sys.argv[1:])
    # All is said and written; what the interpreter tidies up now is nothing to interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    run()
