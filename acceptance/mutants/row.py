"""Every class of damage, many seeds each: the parent survives and each mutant ends as one of the allowed outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from acceptance.context import Context
from acceptance.mutants.outcome import ALLOWED, Outcome, Result
from acceptance.mutants.run import CLASSES, try_mutants
from acceptance.row import Check, Row, at_least, figure, holds

__all__ = ["ROW"]

_SEEDS = 25
_HELPFUL = 0.95


def _run(context: Context) -> Iterator[Check]:
    seeds = context.scaled(_SEEDS)
    results: list[Result] = []
    with context.stage("mutants"):
        mutants = [(kind, seed) for kind in CLASSES for seed in range(seeds)]
        # In order, so that a class is told as soon as its last mutant ends.
        for kind, group in groupby(try_mutants(mutants), lambda result: result.kind):
            tried = list(group)
            results += tried
            yield _of_class(kind, tried)
    yield figure("mutants tried", len(results), f"{len(CLASSES)} classes, {seeds} of each")
    for outcome, count in Counter(result.outcome for result in results).most_common():
        yield figure(outcome.value, count)
    refused = [r for r in results if r.outcome in (Outcome.REFUSED, Outcome.LIMIT)]
    helpful = sum(r.names_place and r.names_fix for r in refused) / max(1, len(refused))
    poor = [r.message[:120] for r in refused if not (r.names_place and r.names_fix)]
    yield at_least("errors that name the place and the fix", helpful, _HELPFUL, "; ".join(poor[:5]))
    slowest = max(results, key=lambda result: result.seconds)
    yield figure("slowest, s", slowest.seconds, f"{slowest.kind}, seed {slowest.seed}")


def _of_class(kind: str, results: Sequence[Result]) -> Check:
    faults = [result for result in results if result.outcome not in ALLOWED]
    detail = "; ".join(f"seed {r.seed}: {r.outcome.value}: {r.message[:200]}" for r in faults[:3])
    count = len(results)
    return holds(f"{kind}: {count - len(faults)} of {count} as allowed", not faults, detail)


ROW = Row(
    "mutants",
    "57 classes of broken ONNX, 25 mutants each, in limited children: the parent survives all, each is "
    "compiled and right or refused with one line, and 95 % of the errors name place and fix",
    _run,
)
