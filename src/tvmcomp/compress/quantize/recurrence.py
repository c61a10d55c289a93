"""Which tensors of an unrolled recurrent layer stay float32: its gates, its state, and the steps' results joined.

    h1 = f(x1 + h0 @ w),  h2 = f(x2 + h1 @ w) ...       f element-wise: the gates of an LSTM, a GRU, an RNN

A rounded state is rounded again at every step and its errors add up, while f is a few values per step beside the
product's many multiplications. So only what enters a product is codes: x and h, one rounding each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Set

from tvmcomp.compress.quantize.graph import POINTWISE, Graph

__all__ = ["recurrent"]

_LAYERS = ("conv2d", "depthwise_conv2d", "dense")
_MOVES = frozenset(
    {"expand_dims", "flatten", "permute_dims", "reshape", "split", "squeeze", "strided_slice", ""}
)
_BETWEEN = POINTWISE | _MOVES | {"nn.leakyrelu", "where"}
_AFTER = _BETWEEN | {"concat"}


def recurrent(graph: Graph) -> frozenset[str]:
    """Every tensor that is made element by element from, or for, the products of a recurrence; empty without one.

    A recurrence is a weight that multiplies what was made, element by element, from its own product.
    """
    products = _products(graph)
    between = frozenset(name for name in graph.values if graph.op(name) in _BETWEEN)
    after = _after(graph)
    # The first step has no product: its state's is a constant. What makes it, and the inputs' share of each step.
    states = [name for layer in products if (name := graph.reads(layer)[0]) in between]
    before = _closure(states, graph.reads, between)
    return frozenset((before | _closure((*products, *states), graph.users, after)).union(states))


def _products(graph: Graph) -> list[str]:
    """The layers of every recurrence."""
    users: defaultdict[str, list[str]] = defaultdict(list)
    for name in graph.values:
        weighted = graph.weighted(name)
        if weighted is not None and weighted.op in _LAYERS:
            users[weighted.weight].append(name)
    return [name for layers in users.values() if _repeats(graph, layers) for name in layers]


def _repeats(graph: Graph, layers: list[str]) -> bool:
    """Whether one of `layers`, which share a weight, reads what was made from another."""
    inputs = {graph.reads(layer)[0] for layer in layers}
    return len(layers) > 1 and any(
        not inputs.isdisjoint(_closure([layer], graph.users, _after(graph))) for layer in layers
    )


def _after(graph: Graph) -> frozenset[str]:
    """Tensors through which a product's result reaches the next."""
    return frozenset(name for name in graph.values if graph.op(name) in _AFTER)


def _closure(
    starts: Iterable[str], follow: Callable[[str], list[str]], inside: Set[str]
) -> set[str]:
    """What is reached from `starts` over tensors that are `inside`, without the starts themselves."""
    found: set[str] = set()
    pending = list(starts)
    while pending:
        for name in follow(pending.pop()):
            if name not in found and name in inside:
                found.add(name)
                pending.append(name)
    return found
