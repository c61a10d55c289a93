"""`tvmcomp diff` names the layer a fault was planted in, and none where there is no fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from acceptance.context import Context, Precision
from acceptance.faults import Planted, plant_in_artifact, plant_in_model, plant_in_scale
from acceptance.nets import TINY, Net
from acceptance.row import Check, Row, at_least, figure, holds, tried

if TYPE_CHECKING:
    from tvmcomp.compress import CompressResult
    from tvmcomp.flow import Executable
    from tvmcomp.model import Model

__all__ = ["ROW", "TRIALS", "Trial"]

_SAMPLES = 2


@dataclass(frozen=True)
class Trial:
    """Where a fault is planted; family "" plants none.

    place:   "artifact" (`role` of its packed constants), "model" (a parameter) or "scale" (of activations).
    against: "source" or "artifact", the sound one.
    """

    net: str
    precision: Precision
    family: str
    place: str
    role: str = ""
    against: str = "source"


TRIALS = (
    Trial("resnet18", "int8", "conv", "artifact", "weight"),
    Trial("mobilenet_v2", "float32", "depthwise", "artifact", "weight"),
    Trial("efficientnet_b0", "int8", "table", "artifact", "table"),
    Trial("resnet18", "int8", "residual", "artifact", "multiplier"),
    Trial("mobilenet_v2", "int8", "conv", "scale"),
    Trial("resnet18", "float32", "dense", "artifact", "bias", "artifact"),
    Trial("mobilenet_v2", "int8", "depthwise", "artifact", "bytes"),
    Trial("resnet18", "float32", "conv", "model"),
    Trial("resnet18", "int8", "conv", "artifact", "multiplier"),
    Trial("resnet18", "int8", "residual", "artifact", "bias", "artifact"),
    Trial("resnet18", "int8", "dense", "artifact", "weight"),
    Trial("resnet18", "float32", "residual", "artifact", "bias"),
    Trial("resnet18", "float32", "conv", "artifact", "bytes"),
    Trial("mobilenet_v2", "int8", "depthwise", "artifact", "multiplier"),
    Trial("mobilenet_v2", "float32", "residual", "artifact", "weight", "artifact"),
    Trial("efficientnet_b0", "int8", "table", "artifact", "bytes", "artifact"),
    Trial("resnet18", "int8", "conv", "model"),
    Trial("mobilenet_v2", "int8", "depthwise", "model"),
    Trial("mobilenet_v2", "float32", "dense", "model"),
    Trial("resnet18", "int8", "conv", "scale"),
)
SOUND = (
    Trial("resnet18", "int8", "", ""),
    Trial("efficientnet_b0", "float32", "", ""),
    Trial("mobilenet_v2", "int8", "", ""),
    Trial("resnet18", "float32", "", ""),
    Trial("efficientnet_b0", "int8", "", ""),
)


@dataclass(frozen=True, eq=False)
class _Made:
    """A network compiled without a fault, and the files a diff of it reads."""

    source: Path
    data: Path
    artifact: Path
    model: Model
    compressed: CompressResult | None
    executable: Executable
    calibration: dict[str, np.ndarray]
    sample: dict[str, np.ndarray]


def _net(context: Context, name: str) -> Net:
    """ResNet-18 as large as the run; the others, which are here for their layers, small."""
    return context.net(name) if name == "resnet18" else next(n for n in TINY if n.name == name)


def _make(context: Context, name: str, precision: Precision) -> _Made:
    import tvmcomp as tc
    from tvmcomp.graph.canonical import canonicalize

    net = _net(context, name)
    source = context.files(net).onnx
    model = canonicalize(tc.load_model(source))
    names = tuple(model.signature.inputs)
    calibration = dict(zip(names, context.calibration(net).values(), strict=True))
    samples = [dict(zip(names, s.values(), strict=True)) for s in context.evaluation(net)]
    samples = samples[:_SAMPLES]
    data = context.folder / f"diff-{name}.npz"
    np.savez(data, **{name: np.concatenate([s[name] for s in samples]) for name in names})
    compressed = tc.compress(model, "int8", calibration) if precision == "int8" else None
    executable = tc.compile(compressed or model)
    artifact = context.folder / f"diff-{name}-{precision}.tvmcomp"
    executable.save(artifact)
    return _Made(source, data, artifact, model, compressed, executable, calibration, samples[0])


def _plant(made: _Made, trial: Trial, seed: int) -> Planted:
    if trial.place == "artifact":
        return plant_in_artifact(made.executable, trial.family, trial.role, made.sample, seed)
    if trial.place == "model":
        return plant_in_model(
            made.model, made.executable, made.compressed, trial.family, seed, made.calibration,
            made.sample,
        )  # fmt: skip
    if made.compressed is None:
        raise ValueError("a float network has no scales")
    return plant_in_scale(made.compressed, made.executable, trial.family, seed)


def _named(made: _Made, artifact: Path, against: str) -> tuple[str, str]:
    """(layer, why) that `diff` says departs first; ("", "") for none."""
    from tvmcomp.cli.diff_files import diff_files

    other = made.source if against == "source" else made.artifact
    first = diff_files(artifact, other, made.data).diff.first
    return ("", "") if first is None else (first.layer, str(first.departs))


def _run(context: Context) -> Iterator[Check]:
    from tvmcomp.artifact import write_artifact

    made: dict[tuple[str, Precision], _Made] = {}
    trials, sound = TRIALS[: context.scaled(len(TRIALS))], SOUND[: context.scaled(len(SOUND))]
    found = quiet = 0

    def one(trial: Trial, seed: int) -> Iterator[Check]:
        nonlocal found, quiet
        key = trial.net, trial.precision
        if key not in made:
            made[key] = _make(context, *key)
        about = f"{trial.net} {trial.precision}"
        if not trial.place:
            layer, why = _named(made[key], made[key].artifact, trial.against)
            quiet += not layer
            yield holds(f"{about}, no fault: none named", not layer, f"{layer}: {why}")
            return
        planted = _plant(made[key], trial, seed)
        path = context.folder / "diff-faulty.tvmcomp"
        write_artifact(path, planted.payload)
        layer, why = _named(made[key], path, trial.against)
        found += layer == planted.layer
        what = f"{about}, {trial.place}: {planted.about}, against the {trial.against}"
        yield holds(what, layer == planted.layer, f"named {layer or 'none'}: {why}")

    for seed, trial in enumerate((*trials, *sound)):
        with context.stage(f"diff {seed}"):
            yield from tried(f"trial {seed}: {trial}", lambda t=trial, s=seed: one(t, s))
    yield at_least("faults found in their layer", found, len(trials))
    yield at_least("sound networks in which nothing is named", quiet, len(sound))
    yield figure("trials", len(trials) + len(sound))


ROW = Row(
    "diff",
    "tvmcomp diff names the planted faulty layer in 20 of 20 trials, and none without a fault",
    _run,
)
