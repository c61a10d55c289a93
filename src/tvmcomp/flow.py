"""The way through the house: compress, compile, measure, save; everything public is a few lines here."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tvmcomp import __version__
from tvmcomp.artifact import (
    Function,
    Manifest,
    Payload,
    Source,
    Tolerance,
    Variant,
    Versions,
    write_artifact,
)
from tvmcomp.build.pipeline import BuildState, build
from tvmcomp.build.rows import kernel_rows
from tvmcomp.calibrate import collect, load_samples
from tvmcomp.compress import CompressResult, Recipe, compress
from tvmcomp.compress.quantize.known import code_rows
from tvmcomp.errors import CalibrationError, IncompatibleHostError, UsageError
from tvmcomp.graph.canonical import canonicalize, is_canonical
from tvmcomp.graph.layers import Dequantize, LayerGraph, Opaque, Quantize, View
from tvmcomp.measure import (
    DataSet,
    EntryPoint,
    Evaluation,
    Measurement,
    Reference,
    describe_inputs,
    evaluate,
    is_entry_point,
    latency,
    load_dataset,
    load_entry_point,
    original,
    sample_inputs,
)
from tvmcomp.model import Model, Signature
from tvmcomp.runtime import Network
from tvmcomp.target import Target, host_cpu

if TYPE_CHECKING:
    from tvmcomp.calibrate import Data, Progress

__all__ = ["Executable", "compile_model", "compress_model", "evaluate_model", "evaluation_data"]


def compress_model(
    model: Model,
    recipe: Recipe | str | Path,
    calibration: Data | None = None,
    *,
    target: Target | str | Path = "host",
    progress: Progress | None = None,
) -> CompressResult:
    """Calibrate `model` by running it compiled in float32 and apply `recipe` for `target`.

    A recipe that takes no ranges from data needs no `calibration`.
    Raises RecipeError if the target does not accept what the recipe asks for (before any work),
    CalibrationError for data that does not fit.
    """
    device = _target(target)
    steps = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    steps.validate(device)
    if steps.calibrated and calibration is None:
        raise CalibrationError(
            f"recipe {steps.name or steps.passes} needs samples to calibrate on; pass calibration="
        )
    canonical = model if is_canonical(model) else canonicalize(model)
    observers = steps.observations(canonical, device)
    if not observers or calibration is None:
        return compress(canonical, steps, None, device)
    statistics = collect(
        canonical,
        load_samples(calibration, canonical.signature),
        observers,
        execute=lambda tapped: _execute(tapped, device),
        progress=progress,
    )
    return compress(canonical, steps, statistics, device)


def compile_model(
    model: Model | CompressResult,
    *,
    target: Target | str | Path = "host",
    dump_ir: Path | None = None,
    golden: Mapping[str, np.ndarray] | None = None,
) -> Executable:
    """Compile for `target`; `golden` is the input of the test run the artifact carries.

    Raises TargetError if nothing compiles for the target yet, ModelError for an operator without lowering.
    """
    compressed = model if isinstance(model, CompressResult) else None
    source = compressed.model if compressed is not None else model
    assert isinstance(source, Model)
    state = build(source, _target(target), dump_ir)
    inputs = golden if golden is not None else sample_inputs(state.model.signature)
    payload = _payload(state, compressed, inputs)
    if _runs_here(state.target):
        outputs = Network.from_payload(payload).run(inputs)
    else:
        outputs = _execute(source, state.target)(inputs)
    return Executable(state, replace(payload, golden_outputs=outputs))


@dataclass(eq=False)
class Executable:
    """A compiled network in memory: call it, measure it, save it."""

    build: BuildState
    payload: Payload
    measurements: dict[str, object] = field(default_factory=dict)

    @cached_property
    def network(self) -> Network:
        """The network loaded on one thread."""
        return Network.from_payload(self.payload)

    def __call__(self, *arrays: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """One output: an array; several: a tuple in the signature's order."""
        return self.network(*arrays)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Names in, names out."""
        return self.network.run(inputs)

    def measure(
        self, inputs: Mapping[str, np.ndarray] | None = None, *, threads: int = 1
    ) -> Measurement:
        """Latency of one call, kept for the artifact's measurements."""
        arrays = inputs if inputs is not None else self.payload.golden_inputs
        with Network.from_payload(self.payload, threads=threads) as network:
            measured = latency(
                lambda: network.run(arrays),
                threads=threads,
                inputs=describe_inputs(arrays, "golden input" if inputs is None else "given"),
            )
        self.measurements[f"latency_threads_{threads}"] = measured.to_dict()
        return measured

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artifact atomically."""
        write_artifact(path, replace(self.payload, measurements=self.measurements))


def evaluation_data(
    data: Path | str | Mapping[str, np.ndarray] | Callable[..., object],
    signature: Signature,
    labels: str | None = None,
) -> DataSet | EntryPoint:
    """What `evaluate_model` takes, read and checked: an .npz file, arrays, "module:function" or a function."""
    if isinstance(data, Path | Mapping):
        return load_dataset(data, signature, labels)
    if labels is not None and (not isinstance(data, str) or is_entry_point(data)):
        raise UsageError(
            f"labels {labels!r} is a key of an .npz file or of arrays; a function brings its own"
        )
    if not isinstance(data, str):
        return EntryPoint(getattr(data, "__qualname__", type(data).__name__), data)
    if is_entry_point(data):
        return load_entry_point(data)
    return load_dataset(Path(data), signature, labels)


def evaluate_model(
    executable: Executable,
    data: Path | str | Mapping[str, np.ndarray] | Callable[..., object] | DataSet | EntryPoint,
    *,
    source: Model | None = None,
    labels: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Accuracy of a compiled network beside its source's, agreement and SQNR; kept for the artifact.

    data:   an .npz file or arrays with the inputs' names and `labels` (class ids; without them there is
            agreement and SQNR only), or a function, or its "package.module:function", that takes
            predict({input: array}) -> {output: array} and returns a score or a dict of scores.
    source: the model before compression: it is run too, compiled in float32.
    The file the model came from runs in its own framework beside them, where that is installed.
    Raises DataError for data that does not fit, IncompatibleHostError for code of another machine.
    """
    signature = executable.build.model.signature
    known = (
        data if isinstance(data, DataSet | EntryPoint) else evaluation_data(data, signature, labels)
    )
    target = executable.build.target
    if not _runs_here(target):
        raise IncompatibleHostError(
            f"code for {target.name} does not run on this machine, so it cannot be evaluated here; "
            "compile and evaluate it there"
        )
    # One thread each: calls are short, and the networks take turns.
    with ExitStack() as stack:
        network = stack.enter_context(Network.from_payload(executable.payload))
        references = []
        if source is not None and executable.payload.manifest.recipe is not None:
            references.append(Reference("tvmcomp", "float32", _execute(source, target, threads=1)))
        file = Path(executable.build.model.provenance.source)
        references.append(stack.enter_context(original(file, signature)))
        found = evaluate(network.run, references, known, progress)
    executable.measurements["evaluation"] = found.to_dict()
    return found


def _target(target: Target | str | Path) -> Target:
    return target if isinstance(target, Target) else Target.load(target)


def _execute(
    model: Model, target: Target, threads: int | None = None
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Run `model` on this machine: as `target` would, or as the host where it lacks the instructions.

    threads: all processors if not given. Integer results are the same on every target and float ones
    within the golden run's tolerance.
    """
    state = build(model, target if _runs_here(target) else Target.load("host"))
    inputs = sample_inputs(state.model.signature)
    count = threads or os.cpu_count() or 1
    network = Network.from_payload(_payload(state, None, inputs), threads=count)
    return network.run


def _runs_here(target: Target) -> bool:
    cpu = host_cpu()
    return target.arch == cpu.arch and target.features <= cpu.features


def _payload(
    state: BuildState, compressed: CompressResult | None, golden: Mapping[str, np.ndarray]
) -> Payload:
    assert state.graph is not None
    assert state.linked is not None
    assert state.arena is not None
    provenance, target = state.model.provenance, state.target
    variant = Variant(
        target=target.name,
        triple=target.triple,
        required_features=tuple(sorted(target.features)),
        arena_bytes=state.arena.size,
        kernels=kernel_rows(state),
        codes=code_rows(state.model),
    )
    manifest = Manifest(
        functions=(
            Function("main", state.model.signature, (variant,), golden=_tolerance(state.graph)),
        ),
        versions=Versions(
            tvmcomp=__version__,
            tvm=version("apache-tvm"),
            tvm_ffi=version("apache-tvm-ffi"),
            python=platform.python_version(),
        ),
        source=Source(provenance.source, provenance.sha256, provenance.framework),
        recipe=compressed.recipe.to_dict() if compressed is not None else None,
        calibration_digest=compressed.calibration_digest if compressed is not None else None,
        sizes={
            "params": state.model.params_bytes,
            "weights": state.linked.weights.nbytes,
            "library": len(state.linked.lib),
            "arena": state.arena.size,
        },
        steps=provenance.steps,
    )
    return Payload(manifest, state.linked.lib, state.linked.weights, golden, {})


def _tolerance(graph: LayerGraph) -> Tolerance:
    """Integer networks repeat bit for bit; float sums may differ in the last bits on another CPU."""
    integer = all(
        isinstance(layer, Quantize | Dequantize | View) or graph.tensors[layer.output].qparams
        for layer in graph.layers
        if not isinstance(layer, Opaque)
    ) and not any(isinstance(layer, Opaque) for layer in graph.layers)
    return Tolerance() if integer else Tolerance(rtol=1e-4, atol=1e-5)
