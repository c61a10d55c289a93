"""docs/coverage.md from the node tests' result: `python -m acceptance.onnx_coverage RESULT.json docs/coverage.md`."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["coverage"]

_HEAD = """# ONNX operators

The ONNX package ships tests of every operator. Each is imported, compiled in float32, saved, loaded and run;
outputs are compared with ONNX Runtime's, or with the test's own where ONNX Runtime lacks the operator. Operands
that decide a shape or what an operator does (axes, shapes, pads, k) are stored in the model, all else is data.
`make acceptance ARGS="--only onnx-nodes"` runs them and writes every case that is not right, with its reason.
"""


def coverage(report: Mapping[str, Any]) -> str:
    """Markdown: the counts, what is left out, and one line per operator with refused tests."""
    counts, results = report["counts"], report["results"]
    total = report["cases"]
    shares = ", ".join(
        f"{counts.get(verdict, 0)} {verdict}" for verdict in ("right", "wrong", "failed", "refused")
    )
    refused = counts.get("refused", 0) / total
    lines = [_HEAD, f"{total} tests: {shares} ({refused:.1%} refused).", "", "Not counted:", ""]
    lines += [f"- {count}: {reason}" for reason, count in sorted(report["left_out"].items())]
    lines += ["", "| operator | refused | of | why, for example |", "|---|---|---|---|"]
    tests = Counter(result["operator"] for result in results)
    for operator, group in sorted(_refused(results).items()):
        why = Counter(_short(result["reason"]) for result in group).most_common(1)[0][0]
        lines.append(f"| {operator} | {len(group)} | {tests[operator]} | {why} |")
    return "\n".join(lines) + "\n"


def _refused(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        if result["verdict"] == "refused":
            groups[result["operator"]].append(result)
    return groups


def _short(reason: str) -> str:
    """The reason without the names of the test's own values."""
    text = re.sub(r"; its inputs: .*", "", reason)
    text = re.sub(r"\S*_expanded_function_(\w+)", r"\1", text)
    return text.replace("|", "\\|")[:160]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(coverage(json.loads(Path(sys.argv[1]).read_text())))
