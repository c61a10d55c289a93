"""`tvmcomp inspect`: what an artifact contains, where it came from, and where its time goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmcomp.cli.arguments import Artifact, existing
from tvmcomp.cli.evaluation import evaluation_lines
from tvmcomp.cli.screen import Answer, Screen, print_pairs, print_table
from tvmcomp.errors import IncompatibleHostError

if TYPE_CHECKING:
    from tvmcomp.artifact import Payload, Report
    from tvmcomp.model import TensorType

__all__ = ["inspect"]


def inspect(
    screen: Screen,
    artifact: Artifact,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="One row per kernel call, with its share of the time here."),
    ] = False,
) -> Answer:
    """Print what an artifact contains."""
    from tvmcomp.artifact import read_artifact
    from tvmcomp.artifact import verify as check_file

    report = check_file(existing(artifact))
    payload = read_artifact(artifact)
    data: dict[str, object] = {
        "artifact": str(artifact),
        "bytes": report.bytes,
        "sha256": report.sha256,
        "manifest": payload.manifest.to_json(),
        "measurements": dict(payload.measurements),
    }
    if not kernels:
        return Answer(data, lambda: _show(artifact, report, payload))
    with screen.progress() as progress:
        progress("time kernels", 0, None)
        rows, reason = _timed_kernels(payload)
    data |= {"kernels": rows, "not_timed": reason}

    def show() -> None:
        _show(artifact, report, payload)
        print()
        _show_kernels(rows, reason)

    return Answer(data, show)


def _timed_kernels(payload: Payload) -> tuple[list[dict[str, object]], str | None]:
    """The manifest's kernel rows with `median_ms` and `share`; both None, and why, if not timed."""
    from tvmcomp.runtime.profile import kernel_times

    rows = payload.function.variants[0].kernels
    times: Sequence[float | None]
    try:
        times, reason = kernel_times(payload), None
    except IncompatibleHostError as error:
        times, reason = [None] * len(rows), str(error)
    total = sum(time or 0.0 for time in times)
    timed = [
        {**row, "median_ms": time, "share": None if time is None or not total else time / total}
        for row, time in zip(rows, times, strict=True)
    ]
    return timed, reason


def _show(path: Path, report: Report, payload: Payload) -> None:
    manifest, variant = payload.manifest, payload.function.variants[0]
    made, source, recipe = manifest.versions, manifest.source, manifest.recipe
    print_pairs(
        [
            ("artifact", f"{path}, {report.bytes:,} bytes"),
            ("sha256", report.sha256),
            *(("input", line) for line in _tensors(payload.function.signature.inputs)),
            *(("output", line) for line in _tensors(payload.function.signature.outputs)),
            ("target", f"{variant.target} ({variant.triple})"),
            ("cpu features", ", ".join(variant.required_features) or None),
            ("recipe", "float32" if recipe is None else recipe.get("name", "a recipe of its own")),
            ("steps", ", ".join(manifest.steps) or None),
            ("source", f"{source.framework}: {source.path}"),
            ("source sha256", source.sha256 or None),
            ("calibration", manifest.calibration_digest),
            ("made with", f"tvmcomp {made.tvmcomp}, TVM {made.tvm}, Python {made.python}"),
            *((f"{name} bytes", f"{size:,}") for name, size in manifest.sizes.items()),
            ("kernel calls", len(variant.kernels)),
            *_measurements(payload.measurements),
        ]
    )


def _tensors(tensors: Mapping[str, TensorType]) -> list[str]:
    return [f"{name}: {t.dtype} {list(t.shape)}" for name, t in tensors.items()]


def _measurements(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A line for each figure whose form is known; of anything else, that it is there."""
    for name, value in found.items():
        if not isinstance(value, Mapping):
            yield name, str(value)
        elif name == "evaluation":
            yield from evaluation_lines(value)
        elif "median_ms" in value:
            yield name, _spread(value)
        elif "metric" in value:
            yield name, f"{value['value']:.4f} {value['metric']} of {value['samples']} samples"
        elif "subject" in value:
            for entry in (value["subject"], *value["peers"]):
                yield name, f"{entry['name']} {entry['precision']} {_spread(entry)}"
        else:
            yield name, f"{len(value)} entries; --json prints them"


def _spread(value: Mapping[str, Any]) -> str:
    if value["median_ms"] is None:
        return f"not timed: {value['reason']}"
    return f"{value['median_ms']:.4f} ms (p10 {value['p10_ms']:.4f}, p90 {value['p90_ms']:.4f})"


def _show_kernels(rows: Sequence[Mapping[str, object]], reason: str | None) -> None:
    if reason is not None:
        print(f"not timed: {reason}")
    print_table(
        ("ms ", "share ", "layer", "kind", "kernel", "isa", "plan"),
        [
            (
                _figure(row["median_ms"], "{:.4f}"),
                _figure(row["share"], "{:.1%}"),
                *(row.get(key, "") for key in ("layer", "kind", "kernel", "isa", "plan")),
            )
            for row in rows
        ],
    )


def _figure(value: object, form: str) -> str:
    return "-" if value is None else form.format(value)
