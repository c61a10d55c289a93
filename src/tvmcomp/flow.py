"""The way through the house: compress, compile, measure, save; everything public is a few lines here."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
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
from tvmcomp.build.dump import layer_text
from tvmcomp.build.pipeline import BuildState, build
from tvmcomp.calibrate import collect, load_samples
from tvmcomp.compress import CompressResult, Recipe, compress
from tvmcomp.errors import CalibrationError
from tvmcomp.graph.canonical import canonicalize, is_canonical
from tvmcomp.graph.layers import Dequantize, LayerGraph, Opaque, Quantize, View
from tvmcomp.measure import Measurement, describe_inputs, latency, sample_inputs
from tvmcomp.model import Model
from tvmcomp.runtime import Network
from tvmcomp.target import Target, host_cpu

if TYPE_CHECKING:
    from tvmcomp.calibrate import Data, Progress

__all__ = ["Executable", "compile_model", "compress_model"]


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


def _target(target: Target | str | Path) -> Target:
    return target if isinstance(target, Target) else Target.load(target)


def _execute(
    model: Model, target: Target
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Run `model` on this machine: as `target` would, or as the host where it lacks the instructions.

    Integer results are the same on every target and float ones within the golden run's tolerance.
    """
    state = build(model, target if _runs_here(target) else Target.load("host"))
    inputs = sample_inputs(state.model.signature)
    network = Network.from_payload(_payload(state, None, inputs), threads=os.cpu_count() or 1)
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
        kernels=_kernel_rows(state),
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


def _kernel_rows(state: BuildState) -> tuple[Mapping[str, object], ...]:
    assert state.scheduled is not None
    assert state.linked is not None
    layers = {layer.name: layer for layer in state.scheduled.graph.layers}
    return tuple(
        {
            "layer": call.layer,
            "kind": type(layers[call.layer]).__name__,
            "function": call.function,
            "kernel": call.kernel.emitter,
            "isa": call.kernel.isa,
            "plan": str(call.kernel.plan) if call.kernel.plan is not None else "",
            "text": layer_text(layers[call.layer]),
            "constants_offset": call.constants_offset,
        }
        for call in state.linked.calls
    )
