"""`python -m acceptance [--only ROW,...] [--networks NET,...] [--tiny] [--out DIR]`; exit 7 when a row fails."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from acceptance.driver import Result, drive
from acceptance.host import ROOT, describe
from acceptance.nets import FULL
from acceptance.report import check_line, write_report
from acceptance.row import Check, Verdict
from acceptance.rows import ROWS

GATE_MISSED = 7


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rows, print every check as it comes, write the report; returns the exit code."""
    options = _parse(argv)
    folder: Path = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    host, begun = describe(), time.monotonic()
    done: list[Result] = []

    def tell(result: Result, check: Check | None) -> None:
        if check is not None:
            print(f"[{result.row.name}]{check_line(check)}", flush=True)
            return
        reason = f": {result.not_run}" if result.not_run else ""
        print(
            f"[{result.row.name}] {result.verdict.value}{reason}, {result.wall_s:.0f} s\n",
            flush=True,
        )
        done.append(result)
        write_report(folder, host, done, time.monotonic() - begun)

    rows = [row for row in ROWS if row.name in options.only]
    results = drive(rows, folder, tiny=options.tiny, nets=options.networks, tell=tell)
    failed = [result.row.name for result in results if result.verdict is Verdict.FAIL]
    print(
        f"{folder / 'acceptance.md'}: {len(results) - len(failed)} of {len(results)} rows did not fail"
    )
    return GATE_MISSED if failed else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    names, nets = [row.name for row in ROWS], [net.name for net in FULL]

    def some_of(known: Sequence[str], text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in chosen if name not in known]
        if unknown or not chosen:
            raise argparse.ArgumentTypeError(
                f"unknown {', '.join(unknown)}; use {', '.join(known)}"
            )
        return chosen

    parser = argparse.ArgumentParser(prog="acceptance", description="Run the acceptance table.")
    parser.add_argument(
        "--only",
        type=lambda t: some_of(names, t),
        default=names,
        metavar="ROW,...",
        help=", ".join(names),
    )
    parser.add_argument(
        "--networks",
        type=lambda t: some_of(nets, t),
        default=[],
        metavar="NET,...",
        help=", ".join(nets),
    )
    parser.add_argument(
        "--tiny", action="store_true", help="tiny networks: to try the harness itself"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "acceptance", metavar="DIR")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
