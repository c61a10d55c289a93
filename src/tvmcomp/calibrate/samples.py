"""`Samples`: calibration data from a file, a folder or any iterable, checked and cut to the model's batch."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from warnings import warn

import numpy as np

from tvmcomp.errors import CalibrationError
from tvmcomp.model import Signature, TensorType

__all__ = ["Data", "Samples", "load_samples"]

Item: TypeAlias = "Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray"
Data: TypeAlias = "str | PathLike[str] | Item | Iterable[Item]"
Batch: TypeAlias = dict[str, np.ndarray]
_Read = TypeVar("_Read")


class Samples:
    """Batches of the model's input shapes; `count` is None where the source can only be read once.

    `digest` covers what has been read so far: after a full pass, all of it.
    """

    def __init__(
        self, source: str, signature: Signature, items: Iterable[Item], count: int | None
    ) -> None:
        self._source = source
        self._signature = signature
        self._items = items
        self._constant: dict[str, np.generic | None] = {}
        self._warned = False
        self.count = count
        self.digest = ""

    def __iter__(self) -> Iterator[Batch]:
        """Each batch once, checked; an empty source is an error, a constant or single one a warning."""
        hashed = hashlib.sha256()
        self._constant = {}
        done = 0
        for number, item in enumerate(self._items):
            for batch in self._batches(item, number):
                self._check_values(batch, done)
                _hash(hashed, batch)
                done += 1
                self.digest = hashed.hexdigest()
                yield batch
        self._finish(done)

    def _batches(self, item: Item, number: int) -> Iterator[Batch]:
        arrays = self._named(item, number)
        inputs = self._signature.inputs
        whole = {name: self._whole(name, arrays[name], kind) for name, kind in inputs.items()}
        lengths = {name: len(array) for name, array in whole.items()}
        runs = {name: lengths[name] // _batch_size(kind) for name, kind in inputs.items()}
        first = next(iter(runs))
        for name, n in runs.items():
            if n != runs[first]:
                raise self._error(
                    f"inputs {first!r} and {name!r} hold {lengths[first]} and {lengths[name]} samples",
                    "give every input the same number",
                )
        for run in range(runs[first]):
            yield {
                name: _run(whole[name], run, _batch_size(kind)).reshape(kind.shape)
                for name, kind in inputs.items()
            }

    def _named(self, item: Item, number: int) -> Mapping[str, np.ndarray]:
        names = list(self._signature.inputs)
        if isinstance(item, Mapping):
            arrays = {str(name): np.asarray(value) for name, value in item.items()}
        else:
            values = list(item) if isinstance(item, tuple | list) else [item]
            if len(values) != len(names):
                raise self._error(
                    f"item {number} holds {len(values)} arrays, the model has {len(names)} inputs "
                    f"({', '.join(names)})",
                    "give one array per input, without labels",
                )
            arrays = {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
        missing, extra = set(names) - set(arrays), set(arrays) - set(names)
        if missing or extra:
            raise self._error(
                f"names are {', '.join(sorted(arrays)) or 'empty'}, the model's inputs are "
                f"{', '.join(names)}",
                "rename them",
            )
        return arrays

    def _whole(self, name: str, array: np.ndarray, kind: TensorType) -> np.ndarray:
        """`array` with a leading axis that counts samples, its dtype and shape checked."""
        if array.dtype.newbyteorder("=") != np.dtype(kind.dtype):
            raise self._error(
                f"input {name!r} has dtype {array.dtype}, the model takes {kind.dtype}",
                f"convert it with .astype({kind.dtype!r})",
            )
        if array.shape == kind.shape[1:]:
            array = array[None]
        if not kind.shape or array.shape[1:] != kind.shape[1:]:
            rest = ", ".join(map(str, kind.shape[1:]))
            raise self._error(
                f"input {name!r} has shape {list(array.shape)}, the model takes {list(kind.shape)}",
                f"give it as [samples, {rest}]",
            )
        size = _batch_size(kind)
        if len(array) % size:
            raise self._error(
                f"input {name!r} holds {len(array)} samples, which is not a multiple of the "
                f"model's batch {size}",
                f"drop {len(array) % size} samples",
            )
        return array

    def _check_values(self, batch: Batch, number: int) -> None:
        for name, array in batch.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise self._error(
                    f"sample {number} of input {name!r} holds NaN or infinity", "remove that sample"
                )
            self._check_bounds(name, array, number)
            first = array.flat[0] if array.size else None
            known = self._constant.setdefault(name, first)
            if known is not None and not (array == known).all():
                self._constant[name] = None

    def _check_bounds(self, name: str, array: np.ndarray, number: int) -> None:
        bounds = self._signature.inputs[name].bounds
        if bounds is None or not array.size:
            return
        smallest, largest = int(array.min()), int(array.max())
        if smallest < bounds[0] or largest > bounds[1]:
            raise self._error(
                f"sample {number} of input {name!r} holds "
                f"{smallest if smallest < bounds[0] else largest}, which the model uses as an index",
                f"give values from {bounds[0]} to {bounds[1]}",
            )

    def _finish(self, done: int) -> None:
        if not done:
            raise self._error("holds no samples", "give at least one, better 100 or more")
        if self._warned:
            return
        self._warned = True
        for name, value in self._constant.items():
            if value is not None:
                warn(
                    f"calibration data {self._source}: input {name!r} is {value} everywhere; "
                    "ranges from it mean nothing, use real samples",
                    stacklevel=2,
                )
        if done == 1:
            warn(
                f"calibration data {self._source} is one batch; ranges from it may be too narrow, "
                "use 100 samples or more",
                stacklevel=2,
            )

    def _error(self, problem: str, fix: str) -> CalibrationError:
        return CalibrationError(f"calibration data {self._source}: {problem}; {fix}")


def load_samples(data: Data, signature: Signature) -> Samples:
    """Calibration data for a model of `signature`; whatever can be read twice is checked here, before any work.

    data: a `.npz` (keys are input names), a `.npy` or a folder of `.npy` files for a model with one input,
          one array, dict or tuple of arrays, or an iterable of those. Axis 0 counts samples.
    """
    source, items = _open(data, signature)
    samples = Samples(source, signature, items, None)
    if isinstance(items, Sequence):
        samples.count = sum(1 for _ in samples)
    return samples


def _open(data: Any, signature: Signature) -> tuple[str, Iterable[Item]]:
    """What errors call the source, and its items."""
    if isinstance(data, str | PathLike):
        return str(data), _read(Path(data), signature)
    if isinstance(data, Mapping) or hasattr(data, "__array__") or _is_item(data, signature):
        return "in memory", [data]
    if isinstance(data, Iterable):
        return "in memory", data
    raise CalibrationError(
        f"calibration data is a {type(data).__name__}; "
        "give a .npz file, a folder of .npy files, arrays, or an iterable of arrays"
    )


def _read(path: Path, signature: Signature) -> Sequence[Item]:
    if path.is_dir():
        return _Folder(sorted(path.glob("*.npy")), signature)
    if path.suffix == ".npy":
        return _Folder([path], signature)
    if path.suffix != ".npz":
        raise CalibrationError(
            f"calibration data {path}: is neither a .npz file nor a folder; save it with numpy.savez"
        )

    def read() -> dict[str, np.ndarray]:
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("is one array without a name, not an archive")
            return dict(archive)

    return [_guarded(path, read)]


class _Folder(Sequence[np.ndarray]):
    """The arrays of `.npy` files, mapped one at a time."""

    def __init__(self, files: list[Path], signature: Signature) -> None:
        if len(signature.inputs) > 1:
            raise CalibrationError(
                f"calibration data {files[0].parent if files else '.'}: .npy files have no names and the "
                f"model has inputs {', '.join(signature.inputs)}; save a .npz with these keys"
            )
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        file = self._files[index]
        return _guarded(file, lambda: np.load(file, mmap_mode="r", allow_pickle=False))


def _guarded(path: Path, read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
    raise CalibrationError(
        f"calibration data {path}: cannot be read: {reason}; save it again with numpy"
    )


def _is_item(data: object, signature: Signature) -> bool:
    """A tuple with one array per input is one item; any other tuple is a sequence of items."""
    return isinstance(data, tuple) and len(data) == len(signature.inputs) > 1


def _batch_size(kind: TensorType) -> int:
    return kind.shape[0] if kind.shape else 1


def _run(array: np.ndarray, run: int, size: int) -> np.ndarray:
    part = array[run * size : (run + 1) * size]
    return np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("="))


def _hash(hashed: hashlib._Hash, batch: Batch) -> None:
    for name, array in batch.items():
        hashed.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        hashed.update(array.data)
