"""Products of two activations, each with the scalar factor and the clip after it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tvmcomp.build.lower.claim import Claim, bounds
from tvmcomp.build.lower.conv import clip_bounds, scalar
from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.graph.layers import FloatMatMul, IntMatMul, TensorSpec

__all__ = ["match_matmul"]


@dataclass
class _Chain:
    """A product and the nodes after it that fold into it."""

    end: Node
    scale: float = 1.0
    low: float = -np.inf
    high: float = np.inf
    nodes: list[str] = field(default_factory=list)

    def extend(self, node: Node) -> None:
        self.nodes.append(self.end.name)
        self.end = node


def match_matmul(flow: Flow, node: Node, taken: set[str]) -> Claim | None:
    """quantize(clip(matmul(dequantize(a), dequantize(b)) * scale))  ->  IntMatMul, without Q/DQ -> FloatMatMul.

    Neither operand is a parameter; `taken` names nodes other groups own already; they end the chain.
    """
    if node.op != "relax.matmul" or node.name in taken or node.dtype != "float32":
        return None
    if any(flow.param(arg) is not None or not _is_matrix(flow, arg) for arg in node.args):
        return None
    chain = _grow(flow, node, taken)
    return _integer(flow, node, chain, taken) or _float(flow, node, chain)


def _is_matrix(flow: Flow, arg: object) -> bool:
    name = flow.resolve(arg).name
    return len(flow.shape(name)) >= 2


def _grow(flow: Flow, node: Node, taken: set[str]) -> _Chain:
    """Follow single uses: scalar factors, then relu or clip."""
    chain = _Chain(node)
    while (user := flow.only_user(chain.end)) is not None and user.name not in taken:
        factor = _factor(flow, user, chain.end)
        clip = clip_bounds(flow, user)
        if factor is not None and (chain.low, chain.high) == (-np.inf, np.inf):
            chain.scale *= factor
        elif clip is not None:
            chain.low, chain.high = (float(np.clip(old, *clip)) for old in (chain.low, chain.high))
        else:
            break
        chain.extend(user)
    return chain


def _factor(flow: Flow, user: Node, before: Node) -> float | None:
    """c of before * c or before / c."""
    if user.op not in ("relax.multiply", "relax.divide") or user.shape != before.shape:
        return None
    left, right = user.args
    if flow.node(left) is not before:
        return None
    value = scalar(flow, right)
    if value is None or not np.isfinite(value) or value == 0.0:
        return None
    return value if user.op == "relax.multiply" else 1.0 / value


def _integer(flow: Flow, node: Node, chain: _Chain, taken: set[str]) -> Claim | None:
    quantize = flow.only_user(chain.end)
    a, b = (flow.dequantized(arg) for arg in node.args)
    if quantize is None or quantize.op != "relax.quantize" or quantize.name in taken:
        return None
    y = flow.qparams(quantize)
    if a is None or b is None or y is None:
        return None
    chain.extend(quantize)
    low, high = bounds(chain.low, chain.high, y, quantize.dtype)
    layer = IntMatMul(
        name=node.name,
        inputs=(a[0], b[0]),
        output=quantize.name,
        multiplier=float(np.float32(a[1].scale * b[1].scale * chain.scale / y.scale)),
        low=low,
        high=high,
    )
    spec = TensorSpec(quantize.name, quantize.shape, quantize.dtype, y)
    return Claim(quantize.name, (layer,), (spec,), tuple(chain.nodes))


def _float(flow: Flow, node: Node, chain: _Chain) -> Claim | None:
    if any(str(arg.ty.dtype) != "float32" for arg in node.args):
        return None
    end = chain.end
    layer = FloatMatMul(
        name=node.name,
        inputs=tuple(flow.resolve(arg).name for arg in node.args),
        output=end.name,
        scale=float(np.float32(chain.scale)),
        low=chain.low,
        high=chain.high,
    )
    return Claim(
        end.name, (layer,), (TensorSpec(end.name, end.shape, end.dtype),), tuple(chain.nodes)
    )
