"""Accuracy of a predictor over labelled data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tvmcomp.errors import DataError
from tvmcomp.measure.provenance import describe_inputs

__all__ = ["Accuracy", "accuracy"]

Data = np.ndarray | Mapping[str, np.ndarray]
Predict = Callable[[Any], Any]


@dataclass(frozen=True)
class Accuracy:
    """`value` of `metric` over `samples`, a share with its standard error."""

    value: float
    samples: int
    metric: str
    standard_error: float
    data_digest: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return asdict(self)


def accuracy(predict: Predict, data: Data, labels: np.ndarray, *, batch: int = 1) -> Accuracy:
    """Share of samples whose largest score is the label's (top 1).

    `predict` gets `batch` samples of `data` at a time (an array, or a mapping of arrays), axis 0
    counting samples; its first output is scores (labels' shape plus one axis of classes) or integer
    class ids (labels' shape). Every call sees a full batch, since a compiled network's shapes are
    fixed: the last one is filled up with its last sample, whose copies are not counted.
    """
    labels = np.asarray(labels)
    total = _samples(data, labels)
    if batch < 1:
        raise DataError(f"batch must be at least 1, got {batch}; pass the network's batch size")
    correct = 0
    counted = 0
    for chunk, rows in _batches(data, total, batch):
        truth = labels[counted : counted + rows]
        classes = _classes(_first(predict(chunk)), truth.ndim, batch)[:rows]
        if classes.shape != truth.shape:
            raise DataError(
                f"predictions have shape {classes.shape} where labels have {truth.shape}; "
                "labels must be class ids, one per prediction"
            )
        correct += int((classes == truth).sum())
        counted += rows
    share = correct / labels.size
    error = math.sqrt(share * (1 - share) / labels.size)
    named = data if isinstance(data, Mapping) else {"data": data}
    digest = describe_inputs({**named, "labels": labels}, "").digest
    return Accuracy(share, total, "top1", error, digest)


def _samples(data: Data, labels: np.ndarray) -> int:
    arrays = data if isinstance(data, Mapping) else {"data": data}
    if labels.size == 0 or not arrays:
        raise DataError("no samples to evaluate on; pass at least one input with its label")
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != len(labels):
            raise DataError(
                f"{name!r} has shape {array.shape} for {len(labels)} labels; "
                "axis 0 of both must count the same samples"
            )
    return len(labels)


def _batches(data: Data, total: int, batch: int) -> Iterator[tuple[Data, int]]:
    for start in range(0, total, batch):
        rows = min(batch, total - start)
        index = np.minimum(np.arange(start, start + batch), total - 1)
        if isinstance(data, Mapping):
            yield {name: array[index] for name, array in data.items()}, rows
        else:
            yield data[index], rows


def _first(output: Any) -> np.ndarray:
    if isinstance(output, Mapping):
        output = next(iter(output.values()))
    elif isinstance(output, tuple | list):
        output = output[0]
    return np.asarray(output)


def _classes(output: np.ndarray, rank: int, batch: int) -> np.ndarray:
    if output.ndim == 0 or len(output) != batch:
        raise DataError(
            f"a batch of {batch} gave an output of shape {output.shape}; "
            "axis 0 must count samples, and batch must be the network's"
        )
    if output.dtype.kind == "f" and not np.isfinite(output).all():
        raise DataError("the network's output holds NaN or infinity; check its input and weights")
    if output.ndim == rank and output.dtype.kind in "iu":
        return output
    if output.ndim == rank + 1:
        return np.asarray(output.argmax(axis=-1))
    raise DataError(
        f"an output of shape {output.shape} and type {output.dtype} is neither class ids nor scores "
        f"for labels of rank {rank}; evaluate with a function of your own"
    )
