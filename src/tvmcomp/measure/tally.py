"""What adds up over the calls of an evaluation: marks per sample, noise per output, equal best classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvmcomp.errors import DataError
from tvmcomp.model import TensorType

__all__ = ["Marks", "Noise", "best_class", "check_labels", "marks_of"]

_TOP = 5


@dataclass(eq=False)
class Marks:
    """Per metric the parts of a run over all samples: each mark is a share of right answers, 0 to 1."""

    parts: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, marks: Mapping[str, np.ndarray]) -> None:
        """The marks of one call."""
        for name, values in marks.items():
            self.parts.setdefault(name, []).append(values)

    def joined(self) -> dict[str, np.ndarray]:
        """name -> [samples]."""
        return {name: np.concatenate(parts) for name, parts in self.parts.items()}


def check_labels(outputs: Mapping[str, TensorType], labels: np.ndarray, batch: int) -> None:
    """Raise DataError unless `marks_of` can judge a network of these `outputs` by all `labels` [samples, ...]."""
    name, output = next(iter(outputs.items()))
    axis = _class_axis(name, output.shape, np.dtype(output.dtype), labels, batch)
    if axis is None:
        return
    classes = output.shape[axis]
    if labels.min() < 0 or labels.max() >= classes:
        odd = labels[(labels < 0) | (labels >= classes)].flat[0]
        raise DataError(
            f"label {odd} is no class: output {name!r} has {classes}, 0 to {classes - 1}; "
            "give the ids the network was trained with"
        )


def marks_of(
    outputs: Mapping[str, np.ndarray], labels: np.ndarray, batch: int
) -> dict[str, np.ndarray]:
    """Marks of one call by its first output: "top1", and "top5" where there are more than 5 classes.

    labels: [rows, ...], rows <= batch. The output is class ids ([batch, ...]) or scores with the
    classes along the last axis or the second one. Rows with NaN or infinity are wrong.
    """
    name, output = next(iter(outputs.items()))
    output = np.asarray(output)
    axis = _class_axis(name, output.shape, output.dtype, labels, batch)
    axes = tuple(range(1, labels.ndim))
    if axis is None:
        return {"top1": (output[: len(labels)] == labels).mean(axes)}
    scores = np.moveaxis(output, axis, -1)[: len(labels)]
    finite = np.isfinite(scores).all(-1)
    marks = {"top1": ((scores.argmax(-1) == labels) & finite).mean(axes)}
    if scores.shape[-1] > _TOP:
        best = np.argpartition(scores, -_TOP, axis=-1)[..., -_TOP:]
        marks["top5"] = ((best == labels[..., None]).any(-1) & finite).mean(axes)
    return marks


def _class_axis(
    name: str, output: tuple[int, ...], dtype: np.dtype, labels: np.ndarray, batch: int
) -> int | None:
    """The axis of a score per class, the last or the second one; None where the output is class ids."""
    shape = (batch, *labels.shape[1:])
    if output == shape and dtype.kind in "iu":
        return None
    if len(output) == len(shape) + 1:
        if output[:-1] == shape:
            return len(output) - 1
        if (output[0], *output[2:]) == shape:
            return 1
    raise DataError(
        f"output {name!r} is {dtype} of shape {list(output)}, neither class ids nor "
        f"scores for labels of shape {list(shape)}; evaluate with a function of your own"
    )


@dataclass(eq=False)
class Noise:
    """Signal and noise of each output against a reference, and how often the best class is the same."""

    signal: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    same: int = 0
    rows: int = 0

    def add(
        self,
        reference: Mapping[str, np.ndarray],
        other: Mapping[str, np.ndarray],
        samples: int | None,
    ) -> None:
        """One call's outputs; of a batch filled up only the first `samples` count, None is all."""
        for name, ours in other.items():
            theirs = reference.get(name)
            if theirs is None or theirs.shape != ours.shape:
                got = "missing" if theirs is None else f"of shape {list(theirs.shape)}"
                self.reasons[name] = f"the reference's is {got}, ours of {list(ours.shape)}"
                continue
            wide = theirs[:samples].astype(np.float64) if theirs.ndim else theirs.astype(np.float64)
            own = ours[:samples].astype(np.float64) if ours.ndim else ours.astype(np.float64)
            self.signal[name] = self.signal.get(name, 0.0) + float(np.sum(wide**2))
            self.noise[name] = self.noise.get(name, 0.0) + float(np.sum((wide - own) ** 2))
        first = next(iter(other))
        if first in self.reasons:
            return
        mine, theirs = best_class(other[first]), best_class(reference[first])
        if mine is not None and theirs is not None:
            equal = mine[:samples] == theirs[:samples]
            self.same += int(equal.sum())
            self.rows += equal.size

    @property
    def agreement(self) -> float | None:
        """Share of rows of the first output with the same best class; None where it has no classes."""
        return self.same / self.rows if self.rows else None

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Per output `sqnr_db` (None if identical or for `reason`), `identical`, `reason`."""
        found: dict[str, dict[str, Any]] = {}
        for name in (*self.signal, *(n for n in self.reasons if n not in self.signal)):
            reason = self.reasons.get(name)
            signal, noise = self.signal.get(name, math.nan), self.noise.get(name, math.nan)
            if reason is None and not (math.isfinite(signal) and math.isfinite(noise)):
                reason = "an output holds NaN or infinity"
            elif reason is None and noise and not signal:
                reason = "the reference output is all zero"
            db = 10 * math.log10(signal / noise) if reason is None and noise else None
            found[name] = {
                "sqnr_db": db,
                "identical": reason is None and noise == 0,
                "reason": reason,
            }
        return found


def best_class(output: np.ndarray) -> np.ndarray | None:
    """Where the largest score of each row stands, [batch, ...]; ids as they are; None for one number a row."""
    if output.ndim == 0:
        return None
    if output.dtype.kind in "iub":
        return output
    return np.asarray(output.argmax(-1)) if output.ndim > 1 and output.shape[-1] > 1 else None
