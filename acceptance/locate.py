"""Which layer is the first whose kernel differs from its definition: every tensor made an output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tvmcomp.graph.layers import LayerGraph

__all__ = ["first_difference"]


def first_difference(graph: LayerGraph, inputs: Mapping[str, np.ndarray]) -> str:
    """Name, kind and amount of the first layer that differs; says so if none does."""
    from tvmcomp.build.arena import plan_arena
    from tvmcomp.build.dump import layer_text
    from tvmcomp.build.link import link
    from tvmcomp.compress import reference
    from tvmcomp.kernels.vector import isa_for
    from tvmcomp.schedule.layouts import assign_layouts
    from tvmcomp.schedule.select import select_kernels
    from tvmcomp.target import detect

    target = detect().narrowed()
    names = tuple(layer.output for layer in graph.layers)
    scheduled = assign_layouts(replace(graph, outputs=names))
    kernels = select_kernels(scheduled, isa_for(target.features))
    arena = plan_arena(scheduled)
    linked = link(scheduled, kernels, arena, target.tvm_target())
    got = _run(scheduled.graph, linked.lib, linked.weights, arena.size, inputs)
    want = reference.run(graph, inputs, keep=True)
    for layer, array in zip(graph.layers, got, strict=True):
        expected = want[layer.output]
        if array.tobytes() != np.ascontiguousarray(expected).tobytes():
            off = np.abs(array.astype(np.float64) - expected)
            return (
                f"first differs: {layer.name} ({type(layer).__name__}), {np.count_nonzero(off)} of "
                f"{off.size} values, by up to {off.max():g}: {layer_text(layer)}"
            )
    return "no layer differs when every tensor is an output: a fault of layouts or of the arena"


def _run(
    graph: LayerGraph,
    lib: bytes,
    weights: np.ndarray,
    arena: int,
    inputs: Mapping[str, np.ndarray],
) -> list[np.ndarray]:
    import tempfile
    from pathlib import Path

    import tvm
    from tvm import relax

    def tensor(array: Any) -> tvm.runtime.Tensor:
        return tvm.runtime.tensor(np.ascontiguousarray(array))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lib.so"
        path.write_bytes(lib)
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
        outputs = [
            tensor(np.zeros(graph.tensors[name].shape, graph.tensors[name].dtype))
            for name in graph.outputs
        ]
        machine["main"](
            *(tensor(inputs[name]) for name in graph.inputs),
            *outputs,
            tensor(weights),
            # Garbage, as a used arena is.
            tensor(np.random.default_rng(0).integers(0, 256, arena, np.uint8)),
        )
        return [output.numpy() for output in outputs]
