"""Int8: each layer, fed the same codes, is within one step of the float simulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from acceptance.context import SOURCES, Context, Source
from acceptance.nets import Net
from acceptance.opaque import opaque_runner
from acceptance.row import Check, Row, at_most, figure, tried

__all__ = ["ROW"]


def _one(context: Context, net: Net, source: Source) -> Iterator[Check]:
    from tvmcomp.compress import reference
    from tvmcomp.graph.layers import IntConv, Opaque

    compiled = context.compiled(net, source, "int8")
    graph = compiled.graph
    worst, where, differing, codes, judged = 0.0, "", 0, 0, 0
    with context.stage(f"simulate {net.name}/{source}"):
        for arrays_in in context.evaluation(net)[:2]:
            inputs = compiled.named(arrays_in)
            values = reference.run(graph, inputs, opaque_runner(graph), keep=True)
            for layer in graph.layers:
                if isinstance(layer, Opaque):
                    continue
                arrays = [values[tensor] for tensor in layer.inputs]
                # A table after a convolution is an operator of its own: its steps are not the sum's.
                bare = replace(layer, table=None) if isinstance(layer, IntConv) else layer
                got = values[layer.output]
                if isinstance(layer, IntConv) and layer.table is not None:
                    got = reference.compute(bare, graph.tensors, arrays)
                if got.dtype.kind not in "iu" or graph.tensors[layer.output].qparams is None:
                    continue
                want = reference.simulate_layer(bare, graph.tensors, arrays)
                off = np.abs(got.astype(np.int32) - want.astype(np.int32))
                judged += 1
                codes += off.size
                differing += int(np.count_nonzero(off))
                if off.max() > worst:
                    worst, where = float(off.max()), f"{layer.name} ({type(layer).__name__})"
    about = f"{net.name} from {source}"
    yield at_most(f"{about}: largest difference in steps", worst, 1, where)
    yield figure(
        f"{about}: codes that differ at all", differing / max(1, codes), f"{judged} layers"
    )


def _run(context: Context) -> Iterator[Check]:
    for net in context.nets:
        for source in SOURCES:
            yield from tried(
                f"{net.name} from {source}", lambda n=net, s=source: _one(context, n, s)
            )


ROW = Row(
    "int8-steps", "int8: each op, fed the same codes, within one step of the float simulation", _run
)
