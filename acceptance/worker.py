"""The process that runs rows: one JSON line per event on stdout, so that a crash loses nothing before it."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from acceptance.context import Context
from acceptance.nets import FULL, TINY
from acceptance.row import Check, NotRun, Row

__all__ = ["make_context", "run_rows"]


def make_context(folder: Path, *, tiny: bool, only: Sequence[str] = ()) -> Context:
    """Full-size networks, or tiny ones with few samples and trials; `only` names some of them."""
    nets = tuple(net for net in (TINY if tiny else FULL) if not only or net.name in only)
    if tiny:
        return Context(nets, folder, calibration_samples=8, evaluation_samples=3, trials=0.1)
    return Context(nets, folder)


def run_rows(rows: Sequence[Row], context: Context, out: TextIO) -> None:
    """Tell each row's start, its checks as they come, and its end."""

    def tell(event: Mapping[str, Any]) -> None:
        out.write(json.dumps(event, default=str) + "\n")
        out.flush()

    for row in rows:
        tell({"event": "start", "row": row.name})
        begun = time.perf_counter()
        context.seconds.clear()
        end: dict[str, Any] = {"event": "end", "row": row.name}
        try:
            for check in row.run(context):
                tell({"event": "check", "row": row.name, "check": check.to_dict()})
        except NotRun as reason:
            end["not_run"] = str(reason)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            check = Check(row.name, what[:400], "no error", False, traceback.format_exc()[-4000:])
            tell({"event": "check", "row": row.name, "check": check.to_dict()})
        tell({**end, "wall_s": round(time.perf_counter() - begun, 2), "stages": context.seconds})


def _main() -> None:
    from acceptance.rows import ROWS

    options = json.loads(sys.argv[1])
    # Libraries print to stdout as they please; events keep a private copy of it.
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    context = make_context(Path(options["folder"]), tiny=options["tiny"], only=options["nets"])
    run_rows([row for row in ROWS if row.name in options["rows"]], context, events)
    events.flush()
    # Other libraries' thread pools can hang while they are torn down.
    os._exit(0)


if __name__ == "__main__":
    _main()
