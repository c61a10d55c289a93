"""What the reference needs for float fragments: TVM's own run of each, as the artifact has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tvmcomp.graph.layers import LayerGraph, Opaque

__all__ = ["opaque_runner"]


def opaque_runner(graph: LayerGraph) -> Callable[[Opaque, Sequence[Any]], list[Any]]:
    """A function for `reference.run`; each fragment is compiled once, scheduled as in a build.

    Its float arithmetic has no definition but TVM's, so the codes around it are compared, not its sums.
    """
    built: dict[int, Any] = {}

    def run(layer: Opaque, arrays: Sequence[Any]) -> list[Any]:
        import tvm

        from tvmcomp.schedule.fallback import default_schedule
        from tvmcomp.target import detect

        key = id(layer.function)
        if key not in built:
            scheduled = default_schedule(layer.function)
            module = tvm.IRModule({"main": scheduled.with_attr("global_symbol", "main")})
            built[key] = tvm.tirx.build(module, target=detect().narrowed().tvm_target())["main"]
        given = dict(zip(layer.inputs, arrays, strict=True))
        operands = [given[a] if isinstance(a, str) else a for a in layer.arguments]
        outputs = [
            np.zeros(graph.tensors[name].shape, graph.tensors[name].dtype)
            for name in (layer.output, *layer.extra_outputs)
        ]
        tensors = [
            tvm.runtime.tensor(np.ascontiguousarray(array)) for array in (*operands, *outputs)
        ]
        built[key](*tensors)
        return [tensor.numpy() for tensor in tensors[len(operands) :]]

    return run
