"""Accuracy of what is shipped beside that of its source: over labelled samples, or by a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvmcomp.errors import DataError
from tvmcomp.measure.dataset import DataSet
from tvmcomp.measure.entry_point import EntryPoint
from tvmcomp.measure.intervals import CONFIDENCE, METHOD, SEED, Mean, mean_interval
from tvmcomp.measure.process import WorkerFailed
from tvmcomp.measure.tally import Marks, Noise, marks_of

__all__ = ["Evaluation", "Found", "Reference", "Run", "check_gate", "evaluate"]

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Progress = Callable[[int, "int | None"], None]
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Reference:
    """A network the artifact is held against; `run` is None where it cannot run, for `reason`."""

    name: str
    precision: str
    run: Run | None = None
    reason: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Found:
    """What one reference came to, beside the artifact.

    difference: artifact - reference per metric, paired sample by sample where there are samples.
    agreement:  share of samples (rows, where labels have rows) with the same best class.
    outputs:    per output: sqnr_db (None where identical or not comparable), identical, reason.
    """

    reference: Reference
    metrics: Mapping[str, Mean]
    difference: Mapping[str, Mean]
    agreement: float | None
    outputs: Mapping[str, Mapping[str, Any]]
    reason: str | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The artifact's metrics (top1 and top5, or a function's scores) and what each reference came to.

    `gate` is the metric `drop` is about: the first one.
    """

    data: str
    digest: str | None
    samples: int | None
    labels: str | None
    metrics: Mapping[str, Mean]
    references: tuple[Found, ...]

    @property
    def gate(self) -> str | None:
        """The name of the metric that is judged; None where there is no accuracy."""
        return next(iter(self.metrics), None)

    @property
    def drop(self) -> float | None:
        """How much the artifact loses against the first reference that ran: percentage points of top-1,
        a function's score in its own units. None where there is nothing to compare."""
        if self.gate is None:
            return None
        for found in self.references:
            if self.gate in found.difference:
                lost = -found.difference[self.gate].value
                return 100 * lost if self.labels is not None else lost
        return None

    @property
    def note(self) -> str | None:
        """What this evaluation does not say."""
        if self.metrics:
            return None
        return "no labels: agreement and SQNR only, no accuracy"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "schema": SCHEMA,
            "data": self.data,
            "digest": self.digest,
            "samples": self.samples,
            "labels": self.labels,
            "interval": {"confidence": CONFIDENCE, "method": METHOD, "seed": SEED},
            "artifact": _metrics(self.metrics),
            "references": [
                {
                    "name": found.reference.name,
                    "precision": found.reference.precision,
                    "reason": found.reason,
                    "metrics": _metrics(found.metrics),
                    "difference": _metrics(found.difference),
                    "agreement": found.agreement,
                    "outputs": {name: dict(of) for name, of in found.outputs.items()},
                    "versions": dict(found.reference.versions),
                    "settings": dict(found.reference.settings),
                }
                for found in self.references
            ],
            "drop": self.drop,
            "note": self.note,
        }


def evaluate(
    run: Run,
    references: Sequence[Reference],
    data: DataSet | EntryPoint,
    progress: Progress | None = None,
) -> Evaluation:
    """Run the artifact (`run`) and every reference over `data`; a reference that fails is one with a reason.

    Raises DataError for labels or a function's result that fit no output.
    """
    seats = [_Seat(reference) for reference in references]
    if isinstance(data, DataSet):
        own = _over_samples(run, seats, data, progress)
        digest, samples, labels = data.digest, data.samples, data.labels_name
    else:
        own = _by_function(run, seats, data)
        digest, samples, labels = None, None, None
    return Evaluation(
        data=data.source,
        digest=digest,
        samples=samples,
        labels=labels,
        metrics=_means(own, bounded=labels is not None),
        references=tuple(seat.found(own, bounded=labels is not None) for seat in seats),
    )


@dataclass(eq=False)
class _Seat:
    """A reference while it is run: marks per sample by metric, noise against it, or why it left."""

    reference: Reference
    marks: dict[str, np.ndarray] = field(default_factory=dict)
    noise: Noise = field(default_factory=Noise)
    reason: str | None = None

    def __post_init__(self) -> None:
        self.reason = self.reference.reason

    def outputs(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray] | None:
        """None once it has failed."""
        if self.reason is not None or self.reference.run is None:
            return None
        try:
            return self.reference.run(inputs)
        except WorkerFailed as failure:
            self.reason = str(failure)
            return None

    def found(self, own: Mapping[str, np.ndarray], *, bounded: bool) -> Found:
        """Its figures beside the artifact's `own` marks; none if it left half-way."""
        if self.reason is not None:
            return Found(self.reference, {}, {}, None, {}, self.reason)
        return Found(
            self.reference,
            _means(self.marks, bounded=bounded),
            _differences(own, self.marks, bounded=bounded),
            self.noise.agreement,
            self.noise.to_dict(),
            None,
        )


def _over_samples(
    run: Run, seats: Sequence[_Seat], data: DataSet, progress: Progress | None
) -> dict[str, np.ndarray]:
    marks, others = Marks(), [Marks() for _ in seats]
    for inputs, part in data.calls():
        outputs = run(inputs)
        truth = None if data.labels is None else data.labels[part]
        rows = part.stop - part.start
        if truth is not None:
            marks.add(marks_of(outputs, truth, len(next(iter(inputs.values())))))
        for seat, own in zip(seats, others, strict=True):
            theirs = seat.outputs(inputs)
            if theirs is None:
                continue
            seat.noise.add(theirs, outputs, rows)
            if truth is not None:
                own.add(marks_of(theirs, truth, len(next(iter(inputs.values())))))
        if progress is not None:
            progress(part.stop, data.samples)
    for seat, own in zip(seats, others, strict=True):
        seat.marks = own.joined()
    return marks.joined()


def _by_function(run: Run, seats: Sequence[_Seat], data: EntryPoint) -> dict[str, np.ndarray]:
    def watched(inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The artifact; what it is fed goes through the references too, so that outputs can be compared."""
        outputs = run(inputs)
        for seat in seats:
            theirs = seat.outputs(inputs)
            if theirs is not None:
                seat.noise.add(theirs, outputs, None)
        return outputs

    own = data.scores(watched)
    for seat in seats:
        if seat.reason is None and seat.reference.run is not None:
            try:
                seat.marks = data.scores(seat.reference.run)
            except WorkerFailed as failure:
                seat.reason = str(failure)
    return own


def _means(marks: Mapping[str, np.ndarray], *, bounded: bool) -> dict[str, Mean]:
    """A mean per metric; `bounded`: its marks are shares from 0 to 1."""
    low, high = (0.0, 1.0) if bounded else (-np.inf, np.inf)
    return {
        name: Mean(float(values)) if values.ndim == 0 else mean_interval(values, low, high)
        for name, values in marks.items()
    }


def _differences(
    own: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], *, bounded: bool
) -> dict[str, Mean]:
    low, high = (-1.0, 1.0) if bounded else (-np.inf, np.inf)
    found = {}
    for name, values in own.items():
        theirs = other.get(name)
        if theirs is None:
            continue
        if values.ndim and values.shape == theirs.shape:
            found[name] = mean_interval(values - theirs, low, high)
        else:
            found[name] = Mean(float(values.mean() - theirs.mean()))
    return found


def _metrics(metrics: Mapping[str, Mean]) -> dict[str, Any]:
    return {name: mean.to_dict() for name, mean in metrics.items()}


def check_gate(data: DataSet | EntryPoint) -> None:
    """Raise, before any work, if `data` cannot say by how much accuracy falls."""
    if isinstance(data, DataSet) and data.labels is None:
        raise DataError(
            f"{data.source}: holds no labels, so there is no accuracy to hold --max-drop against; "
            "add class ids under 'labels', or name their key with --labels"
        )
