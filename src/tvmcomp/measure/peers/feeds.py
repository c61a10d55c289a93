"""Our input names and samples in the form another framework takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tvmcomp.errors import TvmcompError
from tvmcomp.measure.exchange import load_arrays

__all__ = ["bind", "calibration_batches"]


def bind(names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`inputs` under the names a model uses: by name, or in order where an export renamed them."""
    if set(names) == set(inputs):
        return {name: inputs[name] for name in names}
    if len(names) != len(inputs):
        raise TvmcompError(
            f"the model takes {list(names)}, the inputs are {list(inputs)}; pass one for each"
        )
    return dict(zip(names, inputs.values(), strict=True))


def calibration_batches(
    path: Path, names: Sequence[str], shapes: Mapping[str, Sequence[int]]
) -> Iterator[dict[str, np.ndarray]]:
    """The samples in `path` cut to the batch of `shapes`; a last part that does not fill one is left out."""
    arrays = load_arrays(path)
    batch = {name: shape[0] if shape else 1 for name, shape in shapes.items()}
    count = min(len(array) // batch[name] for name, array in arrays.items())
    for i in range(count):
        part = {n: a[i * batch[n] : (i + 1) * batch[n]] for n, a in arrays.items()}
        yield bind(names, {n: a.reshape(shapes[n]) for n, a in part.items()})
