"""What may become of a broken model, by name; anything else is a fault."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

__all__ = ["ALLOWED", "Outcome", "Result", "names_a_fix", "names_a_place"]


class Outcome(Enum):
    """What became of one mutant; `ALLOWED` names those that are no fault."""

    EQUAL = "compiled, and equal to ONNX Runtime (else ONNX's evaluator, else the model in a newer opset)"
    REFUSED = "refused with one line, exit code 3"
    LIMIT = "refused by a limit of ours: size, count, values that are not finite"

    OUT_OF_MEMORY = "the child's memory limit was reached and said so in one line, exit code 5"
    WRONG = "compiled, and differs from ONNX Runtime"
    UNJUDGED = "compiled, although nothing else gives it a meaning"
    BUG = "an error of ours, exit code 1"
    NOISE = "printed to stdout or stderr, or an error of several lines"
    SIGNAL = "the child was killed by a signal"
    TIME = "the child took too long"


ALLOWED = frozenset({Outcome.EQUAL, Outcome.REFUSED, Outcome.LIMIT})

_LIMITS = re.compile(r"GiB|NaN or infinite|must be positive|not finite|at most|negative dimension")
_FIXES = (
    "use", "save", "export", "pass", "give", "keep", "copy", "fix", "install", "replace",
    "remove", "rename", "store", "set", "download", "convert", "make", "compute", "simplify",
    "cast", "declare", "check", "correct", "train", "connect", "write", "split", "only", "fold",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One mutant tried."""

    kind: str
    seed: int
    outcome: Outcome
    message: str = ""
    names_place: bool = True
    names_fix: bool = True
    seconds: float = 0.0


def limit(message: str) -> bool:
    """Whether a refusal is one by our own limits."""
    return bool(_LIMITS.search(message))


def names_a_place(message: str, names: Iterable[str]) -> bool:
    """Whether the message holds the name of a node, a value or the file."""
    for name in names:
        # Short names are words of English, too.
        before = (
            r"(?:\w*input|output|function|functions|graph|node|tensor|value|parameter|reads|giving|inputs:)\s"
            if len(name) < 3
            else ""
        )
        if re.search(rf"(?<![\w]){before}{re.escape(name)}(?!\w)", message):
            return True
    return False


def names_a_fix(message: str) -> bool:
    """Whether a later clause of the message tells what to do."""
    clauses = re.split(r"[;:] ", message)[1:]
    return any(clause.split(" ")[0].lower() in _FIXES for clause in clauses if clause.strip())
