"""From the files of a diff to its two sides, and what both comparisons together say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np

from tvmcomp.artifact import Payload, read_artifact
from tvmcomp.build.lower import lower
from tvmcomp.calibrate import Calibration, TensorStats
from tvmcomp.calibrate.collect import taps
from tvmcomp.cli.samples import file_sha256, sample_calls
from tvmcomp.cli.screen import Progress, no_progress
from tvmcomp.compress import Recipe, compress
from tvmcomp.compress.quantize import adopt_weights
from tvmcomp.compress.quantize.known import code_rows, with_codes
from tvmcomp.errors import DataError, TvmcompError, UsageError
from tvmcomp.flow import compile_model
from tvmcomp.frontend import load_model
from tvmcomp.graph.canonical import canonicalize, is_canonical
from tvmcomp.graph.dataflow import Dataflow
from tvmcomp.graph.layers import LayerGraph, View
from tvmcomp.measure.exchange import read_npz
from tvmcomp.model import Model, Signature
from tvmcomp.report import Diff, GraphSide, LayerDiff, RenamedSide, Side, diff_networks
from tvmcomp.report.diff import STEPS, base_name
from tvmcomp.runtime.capture import Capture
from tvmcomp.schedule.layouts import assign_layouts
from tvmcomp.target import Target

__all__ = ["Compared", "diff_files"]

ARTIFACT, MODELS = ".tvmcomp", (".onnx", ".pt2")


@dataclass(frozen=True)
class Compared:
    """diff: the verdict; against: what it was held against; notes: what could not be compared and why."""

    diff: Diff
    against: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {"against": self.against, "notes": list(self.notes), **self.diff.to_dict()}


def diff_files(
    artifact: Path,
    other: Path,
    data: Path,
    *,
    tolerance: float | None = None,
    progress: Progress = no_progress,
) -> Compared:
    """Compare an artifact with another or with the model it came from, on the samples of an .npz.

    A compressed artifact is held against its source twice: its codes against the integers its recipe
    makes of the source (bit for bit), and its values against the source in float32.
    """
    if artifact.suffix in MODELS and other.suffix == ARTIFACT:
        raise UsageError(f"{artifact} is a model; name the artifact first: {other} {artifact}")
    if other.suffix not in (ARTIFACT, *MODELS):
        raise DataError(
            f"{other} is neither an artifact nor a model; give a .tvmcomp, .onnx or .pt2 file"
        )
    progress("read", 0, None)
    payload = read_artifact(artifact)
    signature = payload.function.signature
    samples = sample_calls(signature, read_npz(data))
    subject = Capture(payload)
    if other.suffix == ARTIFACT:
        theirs = read_artifact(other)
        _check_signatures(signature, theirs.function.signature, other)
        progress("run", 0, None)
        found = diff_networks(subject, Capture(theirs), samples, tolerance)
        return Compared(found, str(other), ())
    return _against_source(payload, subject, other, samples, tolerance, progress)


def _against_source(
    payload: Payload,
    subject: Capture,
    source: Path,
    samples: list[dict[str, np.ndarray]],
    tolerance: float | None,
    progress: Progress,
) -> Compared:
    recorded = payload.manifest.source.sha256
    if recorded and file_sha256(source) != recorded:
        warn(
            f"{source} is not the file the artifact was compiled from (its SHA-256 differs); "
            "compared all the same",
            stacklevel=2,
        )
    progress("import", 0, None)
    signature = payload.function.signature
    shapes = {name: of.shape for name, of in signature.inputs.items()}
    model = load_model(source, shapes)
    _check_signatures(signature, model.signature, source)
    model = model if is_canonical(model) else canonicalize(model)
    recipe = payload.manifest.recipe
    exact, notes = None, []
    try:
        graph = _expected(payload, model)
        progress("compare with the definition", 0, None)
        exact = diff_networks(subject, GraphSide(graph), samples, tolerance)
    except TvmcompError as error:
        notes.append(f"not compared layer by layer in its own precision: {error}")
    if exact is not None and recipe is None:
        return Compared(exact, f"{source}, layer by layer as defined", tuple(notes))
    progress("compare with float32", 0, None)
    names = [base_name(name) for name in subject.tensors]
    known = {str(var.name) for var in Dataflow.of(model.module).bindings}
    tapped = taps(model, [n for n in dict.fromkeys(names) if n in known and n not in shapes])
    # What is allowed in codes is no reason to be stricter about what codes cost.
    steps = tolerance if exact is None or tolerance is None else max(tolerance, STEPS)
    wide = diff_networks(subject, _float_side(tapped), samples, steps)
    against = f"{source} in float32"
    if exact is None:
        return Compared(wide, against, tuple(notes))
    return Compared(
        _joined(exact, wide), f"{against}, and as {_name(recipe)} makes it", tuple(notes)
    )


def _expected(payload: Payload, model: Model) -> LayerGraph:
    """The layers the artifact should have been made of: its recipe on the source, with its own scales."""
    variant, recipe = payload.function.variants[0], payload.manifest.recipe
    if recipe is not None:
        target = Target.load(variant.target)
        steps = Recipe.from_dict(recipe, "the artifact's recipe")
        names = steps.observations(model, target)
        low, high = np.array(-1.0), np.array(1.0)
        one = TensorStats(low, high, low, high, 1)
        ranges = Calibration(dict.fromkeys(names, one), "", 1)
        # Its ranges stand for the artifact's, which take their place.
        model = compress(model, steps, ranges, target).model
        known = {str(row["name"]) for row in variant.codes}
        odd = [str(row["name"]) for row in code_rows(model) if row["name"] not in known]
        if odd:
            raise DataError(
                f"its recipe quantizes {odd[0]} and {len(odd) - 1} more, the artifact does not; "
                "compile it again with this tvmcomp"
            )
        model = with_codes(model, variant.codes)
    graph = assign_layouts(lower(adopt_weights(model))).graph
    ours = [str(row["layer"]) for row in variant.kernels]
    theirs = [layer.name for layer in graph.layers if not isinstance(layer, View)]
    if ours != theirs:
        odd_ones = sorted(set(ours) ^ set(theirs))
        raise DataError(
            f"the source lowers to other layers than the artifact has ({', '.join(odd_ones[:4])}); "
            "compile it again with this tvmcomp"
        )
    return graph


def _float_side(tapped: Model) -> Side:
    """The model compiled as it is, its results under their names in the model."""
    compiled = compile_model(tapped)
    scheduled = compiled.build.scheduled
    assert scheduled is not None
    made = (base_name(name) for name in scheduled.graph.outputs)
    variables = (str(var.name) for var in Dataflow.of(tapped.module).outputs)
    return RenamedSide(Capture(compiled.payload), dict(zip(made, variables, strict=True)))


def _joined(exact: Diff, wide: Diff) -> Diff:
    """The exact verdict with the figures against float32, where a bad scale departs too."""
    values = {layer.tensor: layer for layer in wide.layers}
    rows: list[LayerDiff] = []
    for row in exact.layers:
        other = values.get(row.tensor)
        if other is None:
            rows.append(row)
            continue
        rows.append(
            replace(
                row,
                own_sqnr_db=other.own_sqnr_db,
                total_sqnr_db=other.total_sqnr_db,
                scale_loss_db=other.scale_loss_db,
                # Floats that integers made lie off by what quantization costs: the definition judges them.
                departs=row.departs or (other.departs if other.mode == "steps" else None),
            )
        )
    return Diff(tuple(rows), exact.unmatched, exact.samples)


def _name(recipe: Mapping[str, object] | None) -> str:
    return str((recipe or {}).get("name") or "its recipe")


def _check_signatures(ours: Signature, theirs: Signature, other: Path) -> None:
    mine = {name: (of.shape, of.dtype) for name, of in ours.inputs.items()}
    given = {name: (of.shape, of.dtype) for name, of in theirs.inputs.items()}
    if mine != given:
        raise DataError(
            f"{other} takes {_inputs(given)}, the artifact {_inputs(mine)}; "
            "compare networks of the same inputs"
        )


def _inputs(inputs: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{name}: {dtype}{list(shape)}" for name, (shape, dtype) in inputs.items())
