"""`Row`: one line of the acceptance table; the checks it makes and the verdict they add up to."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acceptance.context import Context

__all__ = ["Check", "NotRun", "Row", "Verdict", "at_least", "at_most", "figure", "holds", "tried"]


class Verdict(Enum):
    """What a row comes to."""

    PASS = "pass"
    FAIL = "fail"
    NOT_RUN = "not run"


class NotRun(Exception):
    """This machine cannot try the row; the message is the reason."""


@dataclass(frozen=True)
class Check:
    """One figure. `ok` is None where it only informs; `limit` is what it is held against."""

    what: str
    value: Any
    limit: str = ""
    ok: bool | None = None
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Row:
    """name: for `--only`; claim: what must show; run: yields its checks as it makes them."""

    name: str
    claim: str
    run: Callable[[Context], Iterable[Check]]


def verdict(checks: Sequence[Check]) -> Verdict:
    """FAIL if any check failed, or if none could."""
    judged = [check.ok for check in checks if check.ok is not None]
    return Verdict.PASS if judged and all(judged) else Verdict.FAIL


def at_most(what: str, value: float, limit: float, detail: str = "") -> Check:
    """NaN is never at most anything."""
    return Check(what, value, f"<= {limit:g}", bool(value <= limit), detail)


def at_least(what: str, value: float, limit: float, detail: str = "") -> Check:
    """NaN is never at least anything."""
    return Check(what, value, f">= {limit:g}", bool(value >= limit), detail)


def holds(what: str, ok: bool, detail: str = "") -> Check:
    """Something that is so or not."""
    return Check(what, bool(ok), "true", bool(ok), detail)


def figure(what: str, value: Any, detail: str = "") -> Check:
    """A figure that is reported and not judged."""
    return Check(what, value, detail=detail)


@contextmanager
def _collecting(failures: list[Check], what: str) -> Iterator[None]:
    try:
        yield
    except NotRun:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}".strip()
        failures.append(Check(what, text[:400], "no error", False, traceback.format_exc()[-4000:]))


def tried(what: str, checks: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """The checks of one part of a row; what it raises becomes a failed check, so that other parts run."""
    failures: list[Check] = []
    with _collecting(failures, what):
        yield from checks()
    yield from failures
