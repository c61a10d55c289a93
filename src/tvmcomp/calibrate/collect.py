"""Statistics of tensors inside a model, collected by running it with extra outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from tvmcomp.calibrate.observers import Observer
from tvmcomp.calibrate.samples import Data, Samples, load_samples
from tvmcomp.calibrate.stats import Calibration
from tvmcomp.errors import CalibrationError
from tvmcomp.frontend.block import shape_of
from tvmcomp.graph.dataflow import Dataflow
from tvmcomp.model import Model, Signature, TensorType

__all__ = ["Execute", "Progress", "collect", "taps"]

Run: TypeAlias = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Execute: TypeAlias = Callable[[Model], Run]
Progress: TypeAlias = Callable[[int, int | None], None]


def taps(model: Model, names: Iterable[str]) -> Model:
    """The model with the tensors `names` as extra outputs, where they are not outputs yet.

    main(x, w) { a = f(x, w); b = g(a) } -> b      =>      main(x, w) { ... } -> (b, a)

    An extra output has its tensor's name, with dots behind it where another output has taken that name.
    """
    flow = Dataflow.of(model.module)
    variables = {str(var.name): var for var in flow.bindings}
    keys = _output_keys(model, flow)
    outputs, types = list(flow.outputs), dict(model.signature.outputs)
    for name in names:
        if name not in variables:
            raise CalibrationError(
                f"the model has no tensor {name!r}; it has {', '.join(variables)}"
            )
        if name in keys:
            continue
        key, var = name, variables[name]
        while key in types:
            key += "."
        outputs.append(var)
        types[key] = TensorType(shape_of(var), str(var.ty.dtype))
    module = replace(flow, outputs=tuple(outputs)).build()
    return replace(model, module=module, signature=Signature(model.signature.inputs, types))


def _output_keys(model: Model, flow: Dataflow) -> dict[str, str]:
    """Tensor name -> output name, for the tensors that are outputs."""
    return {var.name: key for var, key in zip(flow.outputs, model.signature.outputs, strict=True)}


def collect(
    model: Model,
    data: Data | Samples,
    observers: Mapping[str, Observer],
    execute: Execute,
    progress: Progress | None = None,
) -> Calibration:
    """Run `model` over `data` and give each tensor in `observers` (inputs too) to its observer.

    execute:  compiles a model into a function from named inputs to named outputs.
    progress: called with (batches done, batches in all or None) after each batch.
    """
    samples = data if isinstance(data, Samples) else load_samples(data, model.signature)
    inner = [name for name in observers if name not in model.signature.inputs]
    tapped = taps(model, inner)
    run = execute(tapped)
    keys = _output_keys(tapped, Dataflow.of(tapped.module))
    tallies = {name: observer.start() for name, observer in observers.items()}
    done = 0
    for batch in samples:
        tensors = {**run(batch), **batch}
        for name, tally in tallies.items():
            values = np.asarray(tensors[keys.get(name, name)])
            if not np.isfinite(values).all():
                raise CalibrationError(
                    f"tensor {name!r} is NaN or infinite on sample {done}; check the model in float32"
                )
            tally.update(values)
        done += 1
        if progress is not None:
            progress(done, samples.count)
    return Calibration(
        {name: tally.stats() for name, tally in tallies.items()}, samples.digest, done
    )
