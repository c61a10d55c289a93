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
from tvmcomp.flow import (
    Executable,
    compile_model,
    compress_model,
    evaluate_model,
    evaluation_data,
)
from tvmcomp.frontend import load_model
from tvmcomp.measure import (
    DataSet,
    EntryPoint,
    Evaluation,
    Measurement,
    check_gate,
    is_entry_point,
)
from tvmcomp.model import Model
from tvmcomp.target import Target

__all__ = ["Compiled", "Compressed", "Job", "check_job", "compile_file", "compress_file"]


@dataclass(frozen=True)
class Job:
    """What to make of which file; no recipe means float32, and then there is nothing to calibrate."""

    model: Path
    target: str = "host"
    recipe: str | None = None
    calibration: Path | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    eval: str | None = None
    labels: str | None = None
    max_drop: float | None = None


@dataclass(frozen=True, eq=False)
class Compressed:
    """What a recipe did, and with `eval` how accurate it is compiled; `missed` as in `Compiled`."""

    result: CompressResult
    target: Target
    evaluation: Evaluation | None = None
    missed: str = ""


@dataclass(frozen=True, eq=False)
class Compiled:
    """The artifact that was written, and what is worth telling of it; `seconds` by stage.

    missed: which gate it did not reach, "" if all; such an artifact lies beside where it was to go.
    """

    output: Path
    target: Target
    compressed: CompressResult | None
    sizes: Mapping[str, int]
    file_bytes: int
    kernel_calls: int
    latency: Measurement
    seconds: Mapping[str, float]
    evaluation: Evaluation | None = None
    missed: str = ""


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
    _evaluation_data(job, model)
    return model, target


def compress_file(job: Job, progress: Progress = no_progress) -> Compressed:
    """Import the model and apply the recipe, calibrated on the job's data if it needs any.

    With `eval`, the result is compiled and judged.
    """
    recipe, target = _plan(job)
    if recipe is None:
        raise UsageError("nothing to compress: no recipe; give --recipe int8 or a .toml file")
    if job.calibration is not None:
        existing(job.calibration)
    progress("import", 0, None)
    model = load_model(existing(job.model), job.input_shapes)
    data = _evaluation_data(job, model)
    result = _compress(job, model, recipe, target, progress)
    if data is None:
        return Compressed(result, target)
    progress("compile", 0, None)
    executable = compile_model(result, target=target)
    evaluation = _evaluated(executable, data, model, progress)
    return Compressed(result, target, evaluation, missed_drop(evaluation, job.max_drop))


def _compress(
    job: Job, model: Model, recipe: Recipe, target: Target, progress: Progress
) -> CompressResult:
    watch = staged(progress, "calibrate")
    return compress_model(model, recipe, job.calibration, target=target, progress=watch)


def _evaluation_data(job: Job, model: Model) -> DataSet | EntryPoint | None:
    """Read and checked before any work; None if nothing is to be evaluated."""
    if job.eval is None:
        return None
    if not is_entry_point(job.eval):
        existing(Path(job.eval))
    data = evaluation_data(job.eval, model.signature, job.labels)
    if job.max_drop is not None:
        check_gate(data)
    return data


def _evaluated(
    executable: Executable, data: DataSet | EntryPoint, source: Model, progress: Progress
) -> Evaluation:
    watch = staged(progress, "evaluate")
    return evaluate_model(executable, data, source=source, progress=watch)


def missed_drop(evaluation: Evaluation, allowed: float | None) -> str:
    """What `--max-drop` has against it, "" if nothing."""
    if allowed is None:
        return ""
    if evaluation.drop is None:
        return "accuracy could not be compared: no float reference ran, see the reasons"
    if evaluation.drop <= allowed:
        return ""
    unit = " points" if evaluation.labels is not None else ""
    return (
        f"{evaluation.gate} falls by {evaluation.drop:.3g}{unit}, "
        f"more than the {allowed:g}{unit} allowed"
    )


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
    if job.calibration is not None:
        existing(job.calibration)
    progress("import", 0, None)
    model = load_model(existing(job.model), job.input_shapes)
    data = _evaluation_data(job, model)
    lap("import")
    if recipe is not None:
        compressed = _compress(job, model, recipe, target, progress)
        lap("compress")
    progress("compile", 0, None)
    executable = compile_model(compressed or model, target=target, dump_ir=dump_ir)
    lap("compile")
    evaluation = None
    if data is not None:
        evaluation = _evaluated(executable, data, model, progress)
        lap("evaluate")
    progress("measure", 0, None)
    latency = executable.measure()
    lap("measure")
    missed = missed_drop(evaluation, job.max_drop) if evaluation is not None else ""
    if missed:
        # Neither this one nor what already lies there is lost, and nobody ships it by accident.
        output = output.with_name(f"{output.stem}.missed{output.suffix}")
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
        evaluation=evaluation,
        missed=missed,
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
    if job.eval is None and (job.labels is not None or job.max_drop is not None):
        raise UsageError("--labels and --max-drop are about --eval; add --eval or drop them")
    target = Target.load(job.target)
    target.require_available()
    recipe = None if job.recipe is None else Recipe.load(job.recipe)
    if recipe is not None and recipe.calibrated and job.calibration is None:
        raise UsageError(f"recipe {job.recipe} needs samples to calibrate on; add --calibration")
    return recipe, target
