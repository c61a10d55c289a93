"""`DataSet`: samples with or without labels to evaluate on, checked whole before any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tvmcomp.errors import DataError
from tvmcomp.measure.exchange import read_npz
from tvmcomp.measure.provenance import describe_inputs
from tvmcomp.measure.tally import check_labels
from tvmcomp.model import Signature

__all__ = ["LABELS", "DataSet", "load_dataset"]

LABELS = "labels"


@dataclass(frozen=True, eq=False)
class DataSet:
    """inputs: name -> [samples, ...]; labels: integer class ids, axis 0 counts samples, or None.

    shapes: what one call takes, whose first axes are the batch.
    """

    source: str
    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    labels_name: str | None
    shapes: Mapping[str, tuple[int, ...]]
    samples: int
    digest: str

    def calls(self) -> Iterator[tuple[dict[str, np.ndarray], slice]]:
        """(inputs of one call, which samples they are); the last batch is filled up with its last sample."""
        batch = _batch(next(iter(self.shapes.values())))
        for start in range(0, self.samples, batch):
            index = np.minimum(np.arange(start, start + batch), self.samples - 1)
            yield (
                {n: np.ascontiguousarray(a[index].reshape(self.shapes[n])) for n, a in self.inputs.items()},
                slice(start, min(start + batch, self.samples)),
            )  # fmt: skip


def load_dataset(
    data: Path | Mapping[str, np.ndarray], signature: Signature, labels: str | None = None
) -> DataSet:
    """The samples in an `.npz` file (or a mapping of arrays) for a network of `signature`.

    labels: the key of the class ids; None takes "labels" if it is there and no input's name.
    Raises DataError for keys, shapes, types or values that do not fit.
    """
    source = str(data) if isinstance(data, Path) else "the arrays given"
    arrays = read_npz(data) if isinstance(data, Path) else dict(data)
    inputs = signature.inputs
    name = _labels_name(source, arrays, signature, labels)
    missing = [key for key in inputs if key not in arrays]
    unknown = [key for key in arrays if key not in inputs and key != name]
    if missing or unknown:
        raise DataError(
            f"{source}: holds {', '.join(arrays) or 'nothing'}; the model takes {', '.join(inputs)}; "
            f"name the arrays after the inputs, and class ids {name or LABELS!r}"
        )
    samples = _samples(source, arrays, signature)
    truth = None if name is None else _labels(source, name, arrays[name], samples, signature)
    named = {key: arrays[key] for key in (*inputs, *([name] if name else []))}
    return DataSet(
        source,
        {key: arrays[key] for key in inputs},
        truth,
        name,
        {key: of.shape for key, of in inputs.items()},
        samples,
        describe_inputs(named, "").digest,
    )


def _labels_name(
    source: str, arrays: Mapping[str, np.ndarray], signature: Signature, asked: str | None
) -> str | None:
    if asked is None:
        return LABELS if LABELS in arrays and LABELS not in signature.inputs else None
    if asked in signature.inputs:
        raise DataError(f"{source}: {asked!r} is an input of the model; name the labels' own key")
    if asked not in arrays:
        raise DataError(f"{source}: holds {', '.join(arrays)}, no labels {asked!r}; name their key")
    return asked


def _samples(source: str, arrays: Mapping[str, np.ndarray], signature: Signature) -> int:
    """How many there are, every input checked."""
    first, samples = "", 0
    batches = {_batch(of.shape) for of in signature.inputs.values()}
    if len(batches) > 1:
        raise DataError(
            f"{source}: the model's inputs have first axes {sorted(batches)}, so samples cannot be "
            "counted along them; evaluate with a function of your own"
        )
    for name, of in signature.inputs.items():
        array = arrays[name]
        dtype = np.dtype(of.dtype)
        if array.dtype.newbyteorder("=") != dtype:
            raise DataError(
                f"{source}: input {name!r} has dtype {array.dtype}, the model takes {of.dtype}; "
                f"convert it with .astype({of.dtype!r})"
            )
        if array.ndim != max(len(of.shape), 1) or array.shape[1:] != of.shape[1:]:
            rest = ", ".join(map(str, ("samples", *of.shape[1:])))
            raise DataError(
                f"{source}: input {name!r} has shape {list(array.shape)}, the model takes "
                f"{list(of.shape)}; give it as [{rest}]"
            )
        if not len(array):
            raise DataError(f"{source}: input {name!r} holds no samples; give at least one")
        if first and len(array) != samples:
            raise DataError(
                f"{source}: inputs {first!r} and {name!r} hold {samples} and {len(array)} samples; "
                "give every input the same number"
            )
        if dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(np.argmax(~np.isfinite(array).reshape(len(array), -1).all(1)))
            raise DataError(
                f"{source}: sample {bad} of input {name!r} holds NaN or infinity; remove that sample"
            )
        first, samples = name, len(array)
    return samples


def _labels(
    source: str, name: str, labels: np.ndarray, samples: int, signature: Signature
) -> np.ndarray:
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{source}: {name!r} has dtype {labels.dtype}; give class ids as whole numbers (int64)"
        )
    if labels.ndim == 0 or len(labels) != samples or not labels.size:
        raise DataError(
            f"{source}: {name!r} has shape {list(labels.shape)} for {samples} samples; "
            "give one label per sample along axis 0"
        )
    ids = labels.astype(np.int64)
    try:
        check_labels(signature.outputs, ids, _batch(next(iter(signature.inputs.values())).shape))
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    return ids


def _batch(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1
