"""`tvmcomp bench`: an artifact's latency, and that of other frameworks on the same input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tvmcomp.cli.arguments import Artifact, Threads, existing
from tvmcomp.cli.screen import Answer, Screen, print_pairs, print_table

__all__ = ["bench"]


def bench(
    screen: Screen,
    artifact: Artifact,
    against: Annotated[
        str,
        typer.Option(
            "--against", metavar="PEER,...", help="Any of onnxruntime,openvino,torch to run beside."
        ),
    ] = "",
    source: Annotated[
        Path | None,
        typer.Option(
            "--source",
            metavar="MODEL",
            help="The model the peers run; by default the file the artifact was compiled from.",
        ),
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", metavar="IN.npz", help="Samples to run; by default generated ones."
        ),
    ] = None,
    threads: Threads = 1,
) -> Answer:
    """Time an artifact, and others beside it.

    Each network runs in its own process; they take turns on the same input and threads.
    """
    from tvmcomp.cli.bench_artifact import bench_artifact

    with screen.progress() as progress:
        data = bench_artifact(
            existing(artifact),
            [name.strip() for name in against.split(",") if name.strip()],
            source=None if source is None else existing(source),
            data=None if input is None else existing(input),
            threads=threads,
            progress=progress,
        )
    return Answer(data, lambda: _show(data))


def _show(data: Mapping[str, Any]) -> None:
    entries = [data["subject"], *data["peers"]]
    print_table(
        ("", "precision", "median ms ", "p10 ", "p90 ", "calls ", "ratio ", "SQNR dB ", ""),
        [
            (
                entry["name"],
                entry["precision"],
                *(_figure(entry[key], "{:.3f}") for key in ("median_ms", "p10_ms", "p90_ms")),
                entry["repeats"] or "-",
                _figure(entry.get("ratio"), "{:.2f}x"),
                _figure((entry["float32_agreement"] or {}).get("sqnr_db"), "{:.1f}"),
                entry["reason"] or "",
            )
            for entry in entries
        ],
    )
    print()
    reference = data["float32_reference"]
    print_pairs(
        [
            ("threads", data["threads"]),
            ("input", data["input"]["description"]),
            (
                "ratio",
                "the peer's median / ours: above 1.00x we are faster" if data["peers"] else None,
            ),
            ("SQNR", f"of the outputs against {reference}" if reference else None),
        ]
    )


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
