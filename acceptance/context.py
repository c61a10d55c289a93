"""`Context`: what rows share within one run, each made once: files, models, artifacts, data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from acceptance.nets import Files, Net, export
from acceptance.photos import CALIBRATION_SEED, EVALUATION_SEED

if TYPE_CHECKING:
    from tvmcomp.graph.layers import LayerGraph

__all__ = ["SOURCES", "Arrays", "Compiled", "Context", "Precision", "Source", "torch_outputs"]

Arrays = dict[str, np.ndarray]

Source = Literal["torch", "onnx"]
Precision = Literal["float32", "int8"]
SOURCES: tuple[Source, ...] = ("torch", "onnx")

_Made = TypeVar("_Made")


@dataclass(frozen=True, eq=False)
class Compiled:
    """A saved artifact and the layer graph it was compiled from; `skipped` as compression tells it."""

    path: Path
    graph: LayerGraph
    inputs: tuple[str, ...]
    skipped: tuple[Mapping[str, Any], ...] = ()

    def named(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """One call's inputs under the artifact's own names, in its order."""
        return dict(zip(self.inputs, arrays.values(), strict=True))


@dataclass(eq=False)
class Context:
    """folder: where everything this run makes lies; seconds: what took how long, by name."""

    nets: tuple[Net, ...]
    folder: Path
    calibration_samples: int = 32
    evaluation_samples: int = 32
    trials: float = 1.0  # share of the trials of rows that repeat something many times
    seconds: dict[str, float] = field(default_factory=dict)
    _made: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def net(self, name: str) -> Net:
        """The network a row is about; its tiny form in a tiny run."""
        return next((net for net in self.nets if net.name == name), self.nets[0])

    def scaled(self, trials: int) -> int:
        """`trials`, or fewer in a tiny run."""
        return max(1, round(trials * self.trials))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Keep how long the block took."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - begun, 2)

    def files(self, net: Net) -> Files:
        """The network's .pt2 and .onnx."""
        return self._once(("files", net), lambda: export(net, self.folder / "models"))

    def calibration(self, net: Net) -> Arrays:
        """Input name -> [samples, ...]: what every quantizer is given."""
        count = self.calibration_samples
        return self._once(("calibration", net.data), lambda: net.inputs(count, CALIBRATION_SEED))

    def evaluation(self, net: Net) -> list[Arrays]:
        """One call's inputs per sample: other samples than those for calibration."""

        def make() -> list[Arrays]:
            samples = net.inputs(self.evaluation_samples, EVALUATION_SEED)
            return [
                {name: array[i : i + 1] for name, array in samples.items()}
                for i in range(self.evaluation_samples)
            ]

        return self._once(("evaluation", net.data), make)

    def framework(self, net: Net) -> list[np.ndarray]:
        """PyTorch's float32 outputs for `evaluation`, each [samples, 1, ...]."""

        def run() -> list[np.ndarray]:
            each = [torch_outputs(net, inputs) for inputs in self.evaluation(net)]
            return [np.stack(arrays) for arrays in zip(*each, strict=True)]

        return self._once(("framework", net), run)

    def calibration_file(self, net: Net) -> Path:
        """The calibration data as an .npz for the command line and for peers."""

        def write() -> Path:
            path = self.folder / f"calibration-{net.name}.npz"
            np.savez(path, **self.calibration(net))
            return path

        return self._once(("calibration file", net), write)

    def compiled(self, net: Net, source: Source, precision: Precision) -> Compiled:
        """The network compiled for this host and saved."""
        return self._once(
            ("compiled", net, source, precision), lambda: self._compile(net, source, precision)
        )

    def _compile(self, net: Net, source: Source, precision: Precision) -> Compiled:
        import tvmcomp as tc

        label = f"{net.name}/{source}/{precision}"
        file = getattr(self.files(net), source)
        with self.stage(f"import {label}"):
            model: Any = tc.load_model(file)
        names = tuple(model.signature.inputs)
        skipped: tuple[Mapping[str, Any], ...] = ()
        if precision == "int8":
            with self.stage(f"compress {label}"):
                samples = zip(names, self.calibration(net).values(), strict=True)
                model = tc.compress(model, "int8", dict(samples))
            skipped = tuple(
                {"name": skip.name, "op": skip.op, "reason": skip.reason, "share": skip.share}
                for skip in model.skipped
            )
        with self.stage(f"compile {label}"):
            executable = tc.compile(model)
        path = self.folder / f"{net.name}-{source}-{precision}.tvmcomp"
        executable.save(path)
        graph = executable.build.graph
        if graph is None:
            raise RuntimeError("a finished build has no layer graph")
        return Compiled(path, graph, names, skipped)

    def _once(self, key: tuple[Any, ...], make: Callable[[], _Made]) -> _Made:
        """What `make` makes; a failure is kept too, so that it is found once and told everywhere."""
        if key not in self._made:
            try:
                self._made[key] = make()
            except Exception as error:
                self._made[key] = error
                raise
        made = self._made[key]
        if isinstance(made, Exception):
            raise made
        return made


def torch_outputs(net: Net, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What PyTorch makes of one call's inputs."""
    import torch

    with torch.inference_mode():
        result = net.build()(*(torch.from_numpy(array) for array in inputs.values()))
    return [value.numpy() for value in (result if isinstance(result, tuple) else (result,))]
