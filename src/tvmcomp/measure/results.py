"""What a bench found: one entry per contender, ratios to the subject, agreement of the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvmcomp.measure.compare import compare
from tvmcomp.measure.contender import Contender
from tvmcomp.measure.latency import Spread, spread
from tvmcomp.measure.process import Worker

__all__ = ["Seat", "report"]

FLOAT = "float32"


@dataclass(eq=False)
class Seat:
    """A contender at the table: its process, its blocks of samples, or why it has none."""

    contender: Contender
    worker: Worker | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    outputs: list[list[np.ndarray]] = field(default_factory=list)
    blocks: list[list[int]] = field(default_factory=list)
    reason: str | None = None

    @property
    def label(self) -> str:
        """Name and precision, in one word."""
        return f"{self.contender.name}:{self.contender.precision}"

    def fail(self, reason: str) -> None:
        """Drop what was measured: a contender that broke down half-way has no figure."""
        self.reason = reason
        self.blocks.clear()
        if self.worker is not None:
            self.worker.close()

    @property
    def spread(self) -> Spread | None:
        """Percentiles over the samples of all rounds; None when it failed."""
        samples = [sample for block in self.blocks for sample in block]
        return spread(samples) if samples else None


def report(seats: Sequence[Seat]) -> dict[str, Any]:
    """`subject`, `peers` and `float32_reference` of the JSON; `seats[0]` is the subject."""
    subject = seats[0]
    reference = next(
        (seat for seat in seats[1:] if seat.contender.precision == FLOAT and seat.reason is None),
        None,
    )
    base = subject.spread
    peers = []
    for best, others in _merged(seats[1:]):
        own = best.spread
        entry = _entry(best, reference)
        entry["ratio"] = own.median_ms / base.median_ms if own and base else None
        entry["agreement"] = (
            compare(subject.outputs, best.outputs).to_dict() if own is not None else None
        )
        if others:
            entry["also"] = [_entry(seat, reference) for seat in others]
        peers.append(entry)
    return {
        "subject": _entry(subject, reference),
        "peers": peers,
        "float32_reference": None if reference is None else reference.label,
    }


def _merged(seats: Sequence[Seat]) -> list[tuple[Seat, list[Seat]]]:
    """(fastest, the others) of the seats with one name and precision, in order of appearance."""
    groups: dict[str, list[Seat]] = {}
    for seat in seats:
        groups.setdefault(seat.label, []).append(seat)
    merged = []
    for group in groups.values():
        ranked = sorted(group, key=_median)
        merged.append((ranked[0], ranked[1:]))
    return merged


def _median(seat: Seat) -> float:
    own = seat.spread
    return own.median_ms if own else float("inf")


def _entry(seat: Seat, reference: Seat | None) -> dict[str, Any]:
    own = seat.spread
    against = None
    if own is not None and reference is not None and reference is not seat:
        against = compare(reference.outputs, seat.outputs).to_dict()
    return {
        "name": seat.contender.name,
        "precision": seat.contender.precision,
        "median_ms": own.median_ms if own else None,
        "p10_ms": own.p10_ms if own else None,
        "p90_ms": own.p90_ms if own else None,
        "repeats": own.repeats if own else 0,
        "round_median_ms": [spread(block).median_ms for block in seat.blocks],
        "reason": seat.reason,
        "float32_agreement": against,
        "versions": dict(seat.versions),
        "settings": dict(seat.settings),
    }
