"""The source model in its own framework as a reference: ONNX Runtime or PyTorch, in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tvmcomp.measure.evaluate import Reference
from tvmcomp.measure.exchange import load_arrays, save_arrays
from tvmcomp.measure.peers import original_contender
from tvmcomp.measure.process import Worker, WorkerFailed
from tvmcomp.model import Signature

__all__ = ["original"]

_SECONDS = 300.0


@contextmanager
def original(source: Path, signature: Signature, threads: int = 1) -> Iterator[Reference]:
    """The model file `source` as it is; where it cannot run, a reference that says why."""
    contender = original_contender(source, signature)
    if contender is None or not source.is_file():
        yield Reference("source", "as given", reason=f"{source} is no .onnx or .pt2 file here")
        return
    with tempfile.TemporaryDirectory(prefix="tvmcomp-original-") as name:
        folder = Path(name)
        given, taken = folder / "in.npz", folder / "out.npz"
        with Worker(folder / "worker.log", threads, None) as worker:

            def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
                save_arrays(given, inputs)
                worker.ask({"do": "outputs", "inputs": [str(given)], "to": [str(taken)]}, _SECONDS)
                arrays = load_arrays(taken).values()
                if len(arrays) != len(signature.outputs):
                    raise WorkerFailed(
                        f"gave {len(arrays)} outputs where the model has {len(signature.outputs)}"
                    )
                return dict(zip(signature.outputs, arrays, strict=True))

            request = {
                "do": "open",
                "factory": contender.factory,
                "options": dict(contender.options),
                "threads": threads,
            }
            try:
                opened = worker.ask(request, _SECONDS)
            except WorkerFailed as failure:
                yield Reference(contender.name, contender.precision, reason=str(failure))
                return
            yield Reference(
                contender.name,
                contender.precision,
                run,
                versions=opened["versions"],
                settings=opened["settings"],
            )
