"""Which layers read their input as codes of a range taken at run time.

y = matmul(x, w)   ->   y = matmul(dynamic_quantize(x), w)          conv2d likewise; all else stays float32
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import cast

from tvmcomp.compress.granularity import PerToken
from tvmcomp.compress.quantize.activations import DynamicActivations
from tvmcomp.compress.quantize.graph import Graph, Weighted
from tvmcomp.compress.quantize.placement import Selection, Skipped
from tvmcomp.frontend.dynamic_form import DynamicDtype, DynamicForm
from tvmcomp.target import RangeOf, Target

__all__ = ["DynamicPlacement", "place_dynamic", "span"]

# With fewer products per value of x, reading x twice more costs what integer products save: measured on 1x1
# convolutions of 16 to 64 outputs with AVX-512 VNNI, 1.0 times as fast at 16 and 24, 1.1 at 32, 1.5 at 64.
_WORTHWHILE = 32


@dataclass(frozen=True)
class DynamicPlacement:
    """Layers with a weight by name, the form of each one's input, and what stays in float."""

    layers: tuple[tuple[str, Weighted], ...]
    inputs: Mapping[str, DynamicForm]
    skipped: tuple[Skipped, ...]


def span(activations: DynamicActivations, op: str) -> RangeOf:
    """What one range of the input of `op` is of."""
    per_token = isinstance(activations.granularity, PerToken) and op == "dense"
    return "token" if per_token else "tensor"


def place_dynamic(
    graph: Graph, target: Target, selection: Selection, activations: DynamicActivations
) -> DynamicPlacement:
    """Every convolution and dense layer that `target` runs so, that pays, and that `selection` does not leave out."""
    found: list[tuple[str, Weighted, DynamicForm]] = []
    skipped: list[Skipped] = []
    for name in graph.values:
        layer = graph.weighted(name)
        if layer is None:
            # Work without a weight, such as attention's products; element-wise operators are no loss in float.
            if macs := graph.macs(name):
                skipped.append(Skipped(name, graph.op(name), "has no weight to quantize", macs))
            continue
        per = span(activations, layer.op)
        scheme = target.dynamic_scheme(layer.op, per)
        names = (name, layer.weight.removesuffix(".weight"))
        reason = (
            f"target {target.name} has no {layer.op} with ranges taken at run time"
            if scheme is None
            else selection.refusal(layer.op, names)
        )
        if scheme is None or reason is not None:
            skipped.append(Skipped(name, layer.op, str(reason), graph.macs(name)))
            continue
        dtype = cast(DynamicDtype, scheme.activation.dtype)
        found.append((name, layer, DynamicForm(dtype, per_token=per == "token")))
    # Layers that read one tensor in one form share what its codes cost.
    products: Counter[tuple[str, DynamicForm]] = Counter()
    for name, _, form in found:
        products[graph.reads(name)[0], form] += graph.macs(name)
    layers: list[tuple[str, Weighted]] = []
    inputs: dict[str, DynamicForm] = {}
    for name, layer, form in found:
        source = graph.reads(name)[0]
        share = products[source, form] / prod(graph.shape(source))
        if share < _WORTHWHILE:
            reason = f"{share:.0f} products per value of its input do not pay for codes of it"
            skipped.append(Skipped(name, layer.op, reason, graph.macs(name)))
            continue
        layers.append((name, layer))
        inputs[name] = form
    order = {name: i for i, name in enumerate(graph.values)}
    skipped.sort(key=lambda skip: order[skip.name])
    return DynamicPlacement(tuple(layers), inputs, tuple(skipped))
