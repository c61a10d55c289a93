"""`tvmcomp compile`: from a model file to one self-verifying artifact."""

from __future__ import annotations

from pathlib import Path
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
    OptionalRecipe,
    TargetName,
    check_output,
    parse_shapes,
    refuse_same,
)
from tvmcomp.cli.evaluation import evaluation_lines
from tvmcomp.cli.screen import Answer, Screen, print_pairs
from tvmcomp.cli.skipped import quantized_line, skipped_json, skipped_lines

if TYPE_CHECKING:
    from tvmcomp.cli.compile_file import Compiled

__all__ = ["compile"]


def compile(
    screen: Screen,
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.tvmcomp", help="The artifact to write.")
    ],
    recipe: OptionalRecipe = None,
    calibration: Calibration = None,
    target: TargetName = "host",
    input_shape: InputShapes = None,
    eval: Eval = None,
    labels: Labels = None,
    max_drop: MaxDrop = None,
    dump_ir: Annotated[
        Path | None,
        typer.Option("--dump-ir", metavar="FOLDER", help="Write what each phase made there."),
    ] = None,
    dry_run: DryRun = False,
) -> Answer:
    """Compile a model into one artifact.

    Without --recipe it stays float32. The artifact is written at the end, whole, and replaces an
    existing file only then. One that misses --max-drop goes beside it, to OUT.missed.tvmcomp.
    """
    shapes = parse_shapes(input_shape)
    check_output(output)
    for given in (model, calibration, None if eval is None else Path(eval)):
        refuse_same(given, output)
    from tvmcomp.cli.compile_file import Job, check_job, compile_file

    job = Job(model, target, recipe, calibration, shapes, eval, labels, max_drop)
    if dry_run:
        with screen.progress() as progress:
            checked, device = check_job(job, progress)
        plan = {"model": str(model), "target": device.name, "recipe": recipe, "output": None}
        ready = f"ok: {model} would be compiled for {device.name}, {checked.params_bytes:,} bytes of parameters"
        return Answer(plan, lambda: print(ready))
    with screen.progress() as progress:
        made = compile_file(job, output, progress, dump_ir)
    data = {
        "model": str(model),
        "target": made.target.name,
        "recipe": recipe,
        "output": str(made.output),
        "file_bytes": made.file_bytes,
        "sizes": dict(made.sizes),
        "kernel_calls": made.kernel_calls,
        "latency": made.latency.to_dict(),
        "skipped": skipped_json(made.compressed),
        "evaluation": None if made.evaluation is None else made.evaluation.to_dict(),
        "missed": made.missed or None,
        "seconds": dict(made.seconds),
    }
    missed = f"{made.missed}; wrote {made.output} instead of {output}" if made.missed else ""
    return Answer(data, lambda: _show(made, recipe), missed)


def _show(made: Compiled, recipe: str | None) -> None:
    latency = made.latency
    print_pairs(
        [
            ("wrote", f"{made.output}, {made.file_bytes:,} bytes"),
            ("target", made.target.name),
            ("recipe", recipe or "float32"),
            ("parameters", f"{made.sizes['params']:,} bytes"),
            ("quantized", quantized_line(made.compressed)),
            *(("left in float", line) for line in skipped_lines(made.compressed)),
            ("kernel calls", made.kernel_calls),
            (
                "latency",
                f"{latency.median_ms:.3f} ms (p10 {latency.p10_ms:.3f}, p90 {latency.p90_ms:.3f}, "
                f"{latency.repeats} calls, {latency.threads} thread)",
            ),
            *evaluation_lines(None if made.evaluation is None else made.evaluation.to_dict()),
            ("took", ", ".join(f"{name} {s:.1f} s" for name, s in made.seconds.items())),
        ]
    )
