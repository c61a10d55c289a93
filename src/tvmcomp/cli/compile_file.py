"""From a model file to an artifact file: import, compress, compile, measure, save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from tvmcomp.build.pipeline import PHASES, BuildState
from tvmcomp.calibrate import load_samples
from tvmcomp.cli.arguments import existing
from tvmcomp.cli.screen import Progress, no_progress, staged
from tvmcomp.compress import CompressResult, Recipe
from tvmcomp.errors import UsageError
from tvmcomp.flow import compile_model, compress_model
from tvmcomp.frontend import load_model
from tvmcomp.measure import Measurement
from tvmcomp.model import Model
from tvmcomp.target import Target

__all__ = ["Compiled", "Job", "check_job", "compile_file", "compress_file"]


@dataclass(frozen=True)
class Job:
    """What to make of which file; no recipe means float32, and then there is nothing to calibrate."""

    model: Path
    target: str = "host"
    recipe: str | None = None
    calibration: Path | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Compiled:
    """The artifact that was written, and what is worth telling of it; `seconds` by stage."""

    output: Path
    target: Target
    compressed: CompressResult | None
    sizes: Mapping[str, int]
    file_bytes: int
    kernel_calls: int
    latency: Measurement
    seconds: Mapping[str, float]


def check_job(job: Job, progress: Progress = no_progress) -> tuple[Model, Target]:
    """All of a job that can fail before the work: files, model, target, recipe, calibration data."""
    recipe, target = _plan(job)
    progress("check", 0, None)
    model = load_model(existing(job.model), job.input_shapes)
    _try_lowering(model, target)
    if recipe is not None:
        recipe.validate(target)
    if job.calibration is not None:
        load_samples(existing(job.calibration), model.signature)
    return model, target


def compress_file(job: Job, progress: Progress = no_progress) -> tuple[CompressResult, Target]:
    """Import the model and apply the recipe, calibrated on the job's data if it needs any."""
    recipe, target = _plan(job)
    if recipe is None:
        raise UsageError("nothing to compress: no recipe; give --recipe int8 or a .toml file")
    if job.calibration is not None:
        existing(job.calibration)
    progress("import", 0, None)
    model = load_model(existing(job.model), job.input_shapes)
    watch = staged(progress, "calibrate")
    result = compress_model(model, recipe, job.calibration, target=target, progress=watch)
    return result, target


def compile_file(
    job: Job, output: Path, progress: Progress = no_progress, dump_ir: Path | None = None
) -> Compiled:
    """Make the artifact `output`: written only when everything else has gone well."""
    clock = perf_counter()
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        nonlocal clock
        clock, begun = perf_counter(), clock
        seconds[name] = clock - begun

    recipe, target = _plan(job)
    compressed: CompressResult | None = None
    if recipe is None:
        progress("import", 0, None)
        model: Model | CompressResult = load_model(existing(job.model), job.input_shapes)
        lap("import")
    else:
        compressed, _ = compress_file(job, progress)
        model = compressed
        lap("compress")
    progress("compile", 0, None)
    executable = compile_model(model, target=target, dump_ir=dump_ir)
    lap("compile")
    progress("measure", 0, None)
    latency = executable.measure()
    lap("measure")
    executable.save(output)
    return Compiled(
        output=output,
        target=target,
        compressed=compressed,
        sizes=executable.payload.manifest.sizes,
        file_bytes=output.stat().st_size,
        kernel_calls=len(executable.payload.function.variants[0].kernels),
        latency=latency,
        seconds=seconds,
    )


def _try_lowering(model: Model, target: Target) -> None:
    """The phases that refuse an operator or a shape; those after them only spend time."""
    state = BuildState(model, target)
    for name, phase in PHASES:
        state = phase(state)
        if name == "lower":
            return


def _plan(job: Job) -> tuple[Recipe | None, Target]:
    if job.recipe is None and job.calibration is not None:
        raise UsageError("--calibration without --recipe has no use; add --recipe int8 or drop it")
    target = Target.load(job.target)
    target.require_available()
    recipe = None if job.recipe is None else Recipe.load(job.recipe)
    if recipe is not None and recipe.calibrated and job.calibration is None:
        raise UsageError(f"recipe {job.recipe} needs samples to calibrate on; add --calibration")
    return recipe, target
