"""A network's files: samples in an .npz, whose axis 0 counts them, and the model it was made from."""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from tvmcomp.errors import DataError, TvmcompError
from tvmcomp.model import Signature, TensorType

__all__ = ["Runnable", "file_sha256", "run_samples", "sample_calls", "write_npz"]

Arrays = Mapping[str, np.ndarray]


class Runnable(Protocol):
    """What `runtime.Network` is."""

    @property
    def signature(self) -> Signature: ...

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]: ...


def write_npz(path: Path, arrays: Arrays) -> None:
    """Write an .npz file that is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            # Not numpy.savez: it takes names as keywords, and some are its own.
            with zipfile.ZipFile(file, "w") as archive:
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise TvmcompError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another path"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Hexadecimal digest of a file; DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def sample_calls(signature: Signature, arrays: Arrays) -> list[dict[str, np.ndarray]]:
    """The inputs of each call: arrays of the signature's shapes are one, [N, ...] are N / batch.

    An array without the leading 1 of its input's shape is one sample.
    """
    missing = [name for name in signature.inputs if name not in arrays]
    unknown = [name for name in arrays if name not in signature.inputs]
    if missing or unknown:
        raise DataError(
            f"inputs: missing {missing}, unknown {unknown}; "
            f"the network takes {list(signature.inputs)}, name the arrays so"
        )
    parts = {name: _parts(name, arrays[name], t) for name, t in signature.inputs.items()}
    first, count = next((name, len(part)) for name, part in parts.items())
    for name, part in parts.items():
        if len(part) != count:
            raise DataError(
                f"inputs {first!r} and {name!r} hold {count} and {len(part)} batches; "
                "give every input as many samples"
            )
    return [{name: part[i] for name, part in parts.items()} for i in range(count)]


def run_samples(
    network: Runnable,
    arrays: Arrays,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, np.ndarray]:
    """Run every sample; outputs are joined along axis 0, or stacked where that is no batch axis."""
    calls = sample_calls(network.signature, arrays)
    results = []
    for number, inputs in enumerate(calls):
        results.append(network.run(inputs))
        if progress is not None:
            progress(number + 1, len(calls))
    if len(results) == 1:
        return results[0]
    batch = _batch(next(iter(network.signature.inputs.values())))
    return {
        name: _joined([result[name] for result in results], t, batch)
        for name, t in network.signature.outputs.items()
    }


def _parts(name: str, array: np.ndarray, tensor: TensorType) -> np.ndarray:
    """`array` as [calls, *shape]."""
    shape = tensor.shape
    if array.shape == shape or (shape[:1] == (1,) and array.shape == shape[1:]):
        return array.reshape(1, *shape)
    batch = _batch(tensor)
    if array.ndim == max(len(shape), 1) and array.shape[1:] == shape[1:]:
        if not array.size:
            raise DataError(f"input {name!r} holds no samples; give at least one")
        if len(array) % batch == 0:
            return array.reshape(-1, *shape)
        raise DataError(
            f"input {name!r} holds {len(array)} samples, not a multiple of the network's batch "
            f"{batch}; drop {len(array) % batch} of them"
        )
    rest = ", ".join(map(str, ("samples", *shape[1:])))
    raise DataError(
        f"input {name!r} has shape {list(array.shape)}, the network takes {list(shape)}; "
        f"give it as [{rest}]"
    )


def _joined(parts: list[np.ndarray], tensor: TensorType, batch: int) -> np.ndarray:
    if tensor.shape and tensor.shape[0] == batch:
        return np.concatenate(parts)
    return np.stack(parts)


def _batch(tensor: TensorType) -> int:
    return tensor.shape[0] if tensor.shape else 1
