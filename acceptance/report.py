"""The figures of a run as JSON and as Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acceptance.driver import Result
from acceptance.row import Check

__all__ = ["check_line", "shown", "write_report"]

SCHEMA = 1


def write_report(
    folder: Path, host: Mapping[str, Any], results: Sequence[Result], wall_s: float
) -> None:
    """acceptance.json and acceptance.md in `folder`; written after every row, so none is lost."""
    data = {
        "schema": SCHEMA,
        "host": dict(host),
        "wall_s": round(wall_s, 1),
        "rows": [result.to_dict() for result in results],
    }
    _write(folder / "acceptance.json", json.dumps(data, indent=2) + "\n")
    _write(folder / "acceptance.md", _markdown(data))


def shown(value: Any) -> str:
    """A figure for a reader."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def check_line(check: Check) -> str:
    """One check on one line."""
    mark = {True: "ok  ", False: "FAIL", None: "    "}[check.ok]
    limit = f"  ({check.limit})" if check.limit else ""
    detail = f"  {check.detail.splitlines()[-1]}" if check.detail else ""
    return f"  {mark} {check.what}: {shown(check.value)}{limit}{detail}"


def _write(path: Path, text: str) -> None:
    scratch = path.with_suffix(path.suffix + ".tmp")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def _markdown(data: Mapping[str, Any]) -> str:
    host = data["host"]
    flags = ", ".join(name for name, there in host["flags"].items() if there)
    without = ", ".join(name for name, there in host["flags"].items() if not there)
    versions = ", ".join(f"{name} {v or 'not installed'}" for name, v in host["versions"].items())
    changed = " with uncommitted changes" if host["uncommitted_changes"] else ""
    lines = [
        "# Acceptance",
        "",
        f"- date: {host['date']}, revision {host['revision']}{changed}, {data['wall_s']:.0f} s",
        f"- CPU: {host['cpu']}, {host['cores']} cores, target {host['target']}",
        f"- flags that matter: {flags}; not there: {without or 'none'}",
        f"- load average at the start: {', '.join(map(str, host['load_average']))}",
        f"- Python {host['python']}, {versions}",
        "",
        "| row | must show | verdict | wall, s | load |",
        "|---|---|---|---|---|",
    ]
    for row in data["rows"]:
        reason = (
            f": {_cell(row['reason'])}" if row["reason"] and row["verdict"] == "not run" else ""
        )
        load = row["load_average"][0] if row["load_average"] else ""
        lines.append(
            f"| {row['row']} | {_cell(row['claim'])} | **{row['verdict']}**{reason} "
            f"| {row['wall_s']:.0f} | {load} |"
        )
    for row in data["rows"]:
        lines += ["", f"## {row['row']}: {row['verdict']}", ""]
        lines += ["| check | figure | limit | | detail |", "|---|---|---|---|---|"]
        for check in row["checks"]:
            mark = {True: "ok", False: "**fail**", None: ""}[check["ok"]]
            cells = (check["what"], shown(check["value"]), check["limit"], mark, check["detail"])
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
        if row["stages_s"]:
            stages = ", ".join(f"{name} {s:.1f} s" for name, s in row["stages_s"].items())
            lines += ["", f"Stages: {stages}."]
    return "\n".join(lines) + "\n"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")[:1500]
