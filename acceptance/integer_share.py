"""Int8: how much of the work is left in float, counted by PyTorch and by the layer graph."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from acceptance.context import SOURCES, Context, Source
from acceptance.nets import Net
from acceptance.row import Check, Row, at_most, figure, tried

__all__ = ["ROW"]

_LIMIT = 0.01


def _framework_macs(net: Net) -> int:
    """Multiply-accumulates of all convolutions and dense layers, from the shapes PyTorch sees."""
    import torch

    total = 0

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        total += weight[0].numel() * output.numel()

    module = net.build()
    hooks = [
        layer.register_forward_hook(count)
        for layer in module.modules()
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)
    ]
    with torch.inference_mode():
        module(torch.zeros(1, 3, net.size, net.size))
    for hook in hooks:
        hook.remove()
    return total


def _one(context: Context, net: Net, source: Source) -> Iterator[Check]:
    from tvmcomp.graph.layers import IntConv, View

    compiled = context.compiled(net, source, "int8")
    graph = compiled.graph
    done = sum(
        prod(layer.weight.shape[1:]) * prod(graph.tensors[layer.output].shape)
        for layer in graph.layers
        if isinstance(layer, IntConv)
    )
    about = f"{net.name} from {source}"
    share = 1 - done / _framework_macs(net)
    skipped = "; ".join(f"{s['name']} ({s['op']}): {s['reason']}" for s in compiled.skipped)
    yield at_most(f"{about}: share of the MACs not in integers", share, _LIMIT, skipped)
    ends = {*graph.inputs, *graph.outputs}
    floats = [
        f"{layer.name} ({type(layer).__name__})"
        for layer in graph.layers
        if not isinstance(layer, View)
        and graph.tensors[layer.output].dtype == "float32"
        and layer.output not in ends
    ]
    yield figure(f"{about}: layers inside with a float32 result", len(floats), ", ".join(floats))


def _run(context: Context) -> Iterator[Check]:
    for net in context.nets:
        for source in SOURCES:
            yield from tried(
                f"{net.name} from {source}", lambda n=net, s=source: _one(context, n, s)
            )


ROW = Row("integer-share", "int8: skipped operators hold at most 1 % of the MACs", _run)
