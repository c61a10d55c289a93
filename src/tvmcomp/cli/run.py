"""`tvmcomp run`: every sample of an .npz file through an artifact, outputs to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tvmcomp.cli.arguments import Artifact, DryRun, Threads, check_output, existing, refuse_same
from tvmcomp.cli.screen import Answer, Screen, print_table, staged

__all__ = ["run"]


def run(
    screen: Screen,
    artifact: Artifact,
    input: Annotated[
        Path,
        typer.Option(
            "--input", "-i", metavar="IN.npz", help="Keys are input names, axis 0 counts samples."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.npz", help="Keys are output names.")
    ],
    threads: Threads = 1,
    dry_run: DryRun = False,
) -> Answer:
    """Run an artifact on a file's samples."""
    from tvmcomp.cli.samples import run_samples, sample_calls, write_npz
    from tvmcomp.measure.exchange import read_npz
    from tvmcomp.runtime import load

    check_output(output)
    for given in (artifact, input):
        refuse_same(given, output)
    arrays = read_npz(existing(input))
    with load(existing(artifact), threads=threads) as network:
        calls = len(sample_calls(network.signature, arrays))
        if dry_run:
            data = {"artifact": str(artifact), "calls": calls, "output": None, "outputs": None}
            return Answer(data, lambda: print(f"ok: {calls} calls would run"))
        with screen.progress() as progress:
            outputs = run_samples(network, arrays, staged(progress, "run"))
    write_npz(output, outputs)
    shapes = {n: {"dtype": str(a.dtype), "shape": list(a.shape)} for n, a in outputs.items()}
    return Answer(
        {"artifact": str(artifact), "calls": calls, "output": str(output), "outputs": shapes},
        lambda: print_table(
            ("output", "dtype", "shape"), [(n, a.dtype, list(a.shape)) for n, a in outputs.items()]
        ),
    )
