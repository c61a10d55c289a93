"""An artifact measured beside the frameworks that can run the model it was compiled from."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np

from tvmcomp.artifact import Source, read_artifact
from tvmcomp.cli.samples import file_sha256, sample_calls
from tvmcomp.cli.screen import Progress, no_progress
from tvmcomp.cli.subject import contender
from tvmcomp.errors import DataError
from tvmcomp.measure import GENERATED, Turns, bench, peer_contenders, sample_inputs
from tvmcomp.measure.exchange import read_npz
from tvmcomp.model import Signature

__all__ = ["bench_artifact", "find_source"]

_COMPARED = 8  # samples whose outputs are compared; the first one is timed


def bench_artifact(
    artifact: Path,
    against: Sequence[str] = (),
    *,
    source: Path | None = None,
    data: Path | None = None,
    threads: int = 1,
    turns: Turns | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """The JSON of `bench`: the artifact's latency and each peer's, taking turns on the same input.

    source: the model the peers run; by default the file the artifact was compiled from.
    data:   an .npz of samples (axis 0 counts them), by default generated ones.
    """
    manifest = read_artifact(artifact).manifest
    signature = manifest.functions[0].signature
    samples = None if data is None else read_npz(data)
    inputs, about = _inputs(signature, samples, data)
    with tempfile.TemporaryDirectory(prefix="tvmcomp-peers-") as folder:
        peers = (
            peer_contenders(
                against,
                source=find_source(artifact, manifest.source, source),
                signature=signature,
                calibration=samples,
                scratch=Path(folder),
            )
            if against
            else ()
        )
        subject = contender(artifact, manifest)
        return bench(
            subject,
            peers,
            inputs,
            description=about,
            threads=threads,
            turns=turns,
            progress=progress,
        )


def find_source(artifact: Path, recorded: Source, given: Path | None) -> Path:
    """The model file the peers run: `given`, or the recorded one if it is still the same file."""
    if given is not None:
        if recorded.sha256 and file_sha256(given) != recorded.sha256:
            warn(
                f"{given} is not the file {artifact} was compiled from (its SHA-256 differs); "
                "the peers run it all the same",
                stacklevel=2,
            )
        return given
    path = Path(recorded.path)
    found = next((p for p in (path, artifact.parent / path) if p.is_file()), None)
    if found is None:
        raise DataError(
            f"the model {artifact} was compiled from, {recorded.path!r}, is not there; "
            "name it with --source"
        )
    if file_sha256(found) != recorded.sha256:
        raise DataError(
            f"{found} has changed since {artifact} was compiled from it (its SHA-256 differs); "
            "compile it again or name the model with --source"
        )
    return found


def _inputs(
    signature: Signature, samples: Mapping[str, np.ndarray] | None, data: Path | None
) -> tuple[list[dict[str, np.ndarray]], str]:
    if samples is None:
        return [sample_inputs(signature, seed=seed) for seed in range(_COMPARED)], GENERATED
    calls = sample_calls(signature, samples)[:_COMPARED]
    return calls, f"{data}: the first sample is timed, {len(calls)} are compared"
