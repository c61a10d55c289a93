"""Int8: how much of the work is left in float, counted by PyTorch and by the layer graph."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from acceptance.context import SOURCES, Context, Source, torch_outputs
from acceptance.nets import Net
from acceptance.row import Check, Row, at_most, figure, tried

__all__ = ["ROW"]

_LIMIT = 0.01


def _framework_macs(net: Net) -> int:
    """Multiply-accumulates of all convolutions and dense layers, from the shapes PyTorch sees.

    A transposed convolution spreads each input element over one filter. Recurrent layers count their two
    products per step.
    """
    import torch

    total = 0

    def count(module: torch.nn.Module, given: tuple[torch.Tensor, ...], output: object) -> None:
        nonlocal total
        if isinstance(module, torch.nn.RNNBase):
            positions = given[0].numel() // given[0].shape[-1]
            steps = given[0].shape[1 if module.batch_first else 0]
            for name, weight in module.named_parameters():
                if name.startswith("weight_hh") and len(given) == 1:
                    # The first step's state is zero.
                    total += positions * (steps - 1) // steps * weight.numel()
                elif name.startswith("weight"):
                    total += positions * weight.numel()
            return
        weight = module.weight
        spread = isinstance(module, torch.nn.modules.conv._ConvTransposeNd)
        total += weight[0].numel() * (given[0] if spread else output).numel()

    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear, torch.nn.RNNBase)
    module = net.build()
    hooks = [
        layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, kinds)
    ]
    torch_outputs(net, net.inputs(1, seed=0))
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
