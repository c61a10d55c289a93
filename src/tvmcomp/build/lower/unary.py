"""Chains of element-wise operators with one quantized source, as 256-entry tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erf

from tvmcomp.build.lower.claim import Claim
from tvmcomp.build.lower.conv import scalar
from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.compress.reference import make_table
from tvmcomp.graph.layers import QParams, Table, TensorSpec

__all__ = ["match_unary", "requantization", "requantize"]

Array = np.ndarray

_LEAKY = "relax.nn.leakyrelu"

# Evaluated in float64 on the 256 dequantized codes, so the last bits of a library's exp do not matter.
_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
    "relax.power": np.power,
    "relax.clip": np.clip,
    "relax.exp": np.exp,
    "relax.log": np.log,
    "relax.sqrt": np.sqrt,
    "relax.rsqrt": lambda x: 1.0 / np.sqrt(x),
    "relax.tanh": np.tanh,
    "relax.erf": erf,
    "relax.abs": np.abs,
    "relax.negative": np.negative,
    "relax.sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    _LEAKY: lambda x, alpha: np.where(x < 0.0, alpha * x, x),
    "relax.nn.relu": lambda x: np.maximum(x, 0.0),
    "relax.nn.silu": lambda x: x / (1.0 + np.exp(-x)),
    "relax.nn.gelu": lambda x: 0.5 * x * (1.0 + erf(x / np.sqrt(2.0))),
    "relax.nn.gelu_tanh": lambda x: (
        0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
    ),
    "relax.nn.softplus": lambda x: np.logaddexp(0.0, x),
}


def match_unary(flow: Flow, quantize: Node, taken: set[str]) -> Claim | None:
    """quantize(f(dequantize(x)))  ->  Table, where f is any chain of element-wise operators and scalars."""
    root = flow.node(quantize.args[0])
    y = flow.qparams(quantize)
    if root is None or y is None:
        return None
    nodes: list[str] = []
    source = _source(flow, root, taken, nodes)
    if source is None or not nodes:
        return None
    x_name, x = source
    shape = root.shape
    if flow.shape(x_name) != shape:
        return None

    def function(values: Array) -> Array:
        with np.errstate(all="ignore"):
            return _evaluate(flow, root, values.astype(np.float64))

    table = make_table(function, x, y, quantize.dtype, flow.dtype(x_name))
    layer = Table(name=root.name, inputs=(x_name,), output=quantize.name, table=table)
    spec = TensorSpec(quantize.name, shape, quantize.dtype, y)
    return Claim(quantize.name, (layer,), (spec,), tuple(dict.fromkeys(nodes)))


def requantization(x: QParams, y: QParams, dtype: str, x_dtype: str) -> Array:
    """The codes of `dtype` with `y`'s qparams of each code of `x_dtype` with `x`'s."""
    return make_table(lambda values: values, x, y, dtype, x_dtype)


def requantize(source: str, target: TensorSpec, x: QParams, dtype: str) -> Table:
    """A table layer that rewrites codes of `dtype` with `x`'s qparams as `target`'s."""
    if target.qparams is None:
        raise ValueError(f"{target.name} carries no qparams")
    table = requantization(x, target.qparams, target.dtype, dtype)
    return Table(
        name=f"{target.name}.requantize", inputs=(source,), output=target.name, table=table
    )


def _source(
    flow: Flow, node: Node, taken: set[str], nodes: list[str]
) -> tuple[str, QParams] | None:
    """The one quantized tensor every non-scalar operand comes from; None if there is none or several."""
    if node.op not in _FUNCTIONS or node.name in taken:
        return None
    nodes.append(node.name)
    found: tuple[str, QParams] | None = None
    for arg in node.args:
        if scalar(flow, arg) is not None:
            continue
        inner = flow.node(arg)
        source = flow.dequantized(arg)
        if source is None and inner is not None:
            source = _source(flow, inner, taken, nodes)
        if source is None or (found is not None and found != source):
            return None
        found = source
    return found


def _evaluate(flow: Flow, node: Node, values: Array) -> Array:
    operands: list[Array] = []
    for arg in node.args:
        number = scalar(flow, arg)
        inner = flow.node(arg)
        if number is not None:
            operands.append(np.float64(number))  # type: ignore[arg-type]
        elif flow.dequantized(arg) is not None:
            operands.append(values)
        elif inner is not None:
            operands.append(_evaluate(flow, inner, values))
    if node.op == _LEAKY:
        operands.append(np.float64(node.value.attrs.alpha))  # type: ignore[arg-type]
    return _FUNCTIONS[node.op](*operands)
