"""`tvmcomp compress`: what a recipe does to a model, layer by layer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tvmcomp.cli.arguments import (
    Calibration,
    DryRun,
    Eval,
    InputShapes,
    Labels,
    MaxDrop,
    Model,
    TargetName,
    parse_shapes,
)
from tvmcomp.cli.evaluation import evaluation_lines
from tvmcomp.cli.screen import Answer, Screen, print_pairs, print_table
from tvmcomp.cli.skipped import skipped_json, skipped_lines

if TYPE_CHECKING:
    from tvmcomp.cli.compile_file import Compressed

__all__ = ["compress"]


def compress(
    screen: Screen,
    model: Model,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", "-r", metavar="RECIPE", help="int8, int8-dynamic or a .toml file."
        ),
    ] = "int8",
    calibration: Calibration = None,
    target: TargetName = "host",
    input_shape: InputShapes = None,
    eval: Eval = None,
    labels: Labels = None,
    max_drop: MaxDrop = None,
    dry_run: DryRun = False,
) -> Answer:
    """Show what a recipe does to each layer.

    Scheme, bytes and error of every layer it changes; what stays in float, and why; with --eval, what
    it costs in accuracy when compiled.
    """
    shapes = parse_shapes(input_shape)
    from tvmcomp.cli.compile_file import Job, check_job, compress_file

    job = Job(model, target, recipe, calibration, shapes, eval, labels, max_drop)
    if dry_run:
        with screen.progress() as progress:
            _, device = check_job(job, progress)
        plan = {"model": str(model), "target": device.name, "recipe": recipe, "layers": None}
        return Answer(plan, lambda: print(f"ok: {recipe} would be applied for {device.name}"))
    with screen.progress() as progress:
        made = compress_file(job, progress)
    result = made.result
    data = {
        "model": str(model),
        "target": made.target.name,
        "recipe": result.recipe.to_dict(),
        "params_bytes": result.model.params_bytes,
        "calibration_digest": result.calibration_digest,
        "layers": [asdict(layer) for layer in result.layers],
        "skipped": skipped_json(result),
        "evaluation": None if made.evaluation is None else made.evaluation.to_dict(),
        "missed": made.missed or None,
    }
    return Answer(data, lambda: _show(made), made.missed)


def _show(made: Compressed) -> None:
    result = made.result
    print_table(
        ("layer", "operator", "scheme", "MACs ", "bytes ", "to ", "weight SQNR dB "),
        [
            (
                layer.name,
                layer.op,
                layer.scheme,
                f"{layer.macs:,}",
                f"{layer.before:,}",
                f"{layer.after:,}",
                f"{layer.sqnr_db:.1f}",
            )
            for layer in result.layers
        ],
    )
    print()
    print_pairs(
        [
            ("parameters", f"{result.model.params_bytes:,} bytes"),
            *(("left in float", line) for line in skipped_lines(result)),
            *evaluation_lines(None if made.evaluation is None else made.evaluation.to_dict()),
        ]
    )
