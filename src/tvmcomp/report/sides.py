"""The two sides of a diff: an artifact that gives its tensors, or a layer graph computed by its definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tvm

from tvmcomp.compress import reference
from tvmcomp.graph.layers import LayerGraph, Opaque, TensorSpec
from tvmcomp.runtime.capture import Stored

__all__ = ["GraphSide", "RenamedSide", "Side"]


class Side(Protocol):
    """What `runtime.capture.Capture` is too."""

    @property
    def tensors(self) -> Mapping[str, Stored]:
        """Every tensor it computes, in order."""

    def run(
        self, inputs: Mapping[str, Any], given: Mapping[str, np.ndarray] | None = None
    ) -> Mapping[str, np.ndarray]:
        """What each layer makes; of `given` tensors instead of the network's own where it reads them."""


class GraphSide:
    """A layer graph in numpy (`compress/reference`); fragments without a definition as TVM lowers them."""

    def __init__(self, graph: LayerGraph) -> None:
        self._graph = graph
        self._compiled: dict[str, Any] = {}
        self.tensors: dict[str, Stored] = {
            name: _stored(graph.tensors[name])
            for layer in graph.layers
            for name in (layer.output, *getattr(layer, "extra_outputs", ()))
        }

    def run(
        self, inputs: Mapping[str, Any], given: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """name -> array of every tensor layers write."""
        tensors = self._graph.tensors
        own = {name: np.asarray(inputs[name]) for name in self._graph.inputs}
        read = dict(own)
        for layer in self._graph.layers:
            arrays = [read[name] for name in layer.inputs]
            if isinstance(layer, Opaque):
                names: tuple[str, ...] = (layer.output, *layer.extra_outputs)
                made = self._opaque(layer, arrays)
            else:
                names = (layer.output, *getattr(layer, "extra_outputs", ()))
                made = list(reference.compute_outputs(layer, tensors, arrays))
            for name, array in zip(names, made, strict=True):
                own[name] = array
                read[name] = given[name] if given is not None and name in given else array
        return {name: own[name] for name in self.tensors}

    def _opaque(self, layer: Opaque, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The fragment compiled as it is, without the schedule that artifacts give it."""
        if layer.name not in self._compiled:
            function = layer.function.with_attr("global_symbol", "main")
            target = tvm.target.Target({"kind": "llvm"})
            self._compiled[layer.name] = tvm.compile(
                tvm.IRModule({"main": function}), target=target
            )
        rest = iter(arrays)
        operands = [next(rest) if isinstance(a, str) else a for a in layer.arguments]
        specs = [self._graph.tensors[name] for name in (layer.output, *layer.extra_outputs)]
        outputs = [np.zeros(spec.shape, spec.dtype) for spec in specs]
        held = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in (*operands, *outputs)]
        self._compiled[layer.name]["main"](*held)
        return [tensor.numpy() for tensor in held[len(operands) :]]


class RenamedSide:
    """A side whose tensors have other names: one begins with a key of `names` -> its value instead.

    TVM's fusion calls a result by a name of its own; "gv9" and "gv9.out" are then "mean_1" and "mean_1.out".
    """

    def __init__(self, side: Side, names: Mapping[str, str]) -> None:
        self._side = side
        self._theirs = {_renamed(name, names): name for name in side.tensors}
        self.tensors: dict[str, Stored] = {
            ours: side.tensors[name] for ours, name in self._theirs.items()
        }

    def run(
        self, inputs: Mapping[str, Any], given: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """As the side itself."""
        passed = {self._theirs[name]: array for name, array in (given or {}).items()}
        found = self._side.run(inputs, passed)
        return {ours: found[name] for ours, name in self._theirs.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    first, dot, rest = name.partition(".")
    return f"{names.get(first, first)}{dot}{rest}"


def _stored(spec: TensorSpec) -> Stored:
    scale = None if spec.qparams is None else spec.qparams.scale
    zero_point = None if spec.qparams is None else spec.qparams.zero_point
    return Stored(spec.name, spec.dtype, spec.shape, scale, zero_point, (1, 1, 1, 1), 0, 0)
