"""Constants added to and multiplied with one quantized tensor, as one IntAffine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvmcomp.build.lower.claim import Claim
from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.graph.layers import IntAffine, QParams, TensorSpec

__all__ = ["match_affine"]


@dataclass(frozen=True)
class _Affine:
    """multiplier * dequantize(codes) + bias, in float64."""

    codes: str
    x: QParams
    multiplier: np.ndarray
    bias: np.ndarray
    nodes: tuple[str, ...] = ()


def match_affine(
    flow: Flow,
    root: Node,
    spec: TensorSpec,
    limits: tuple[int, int],
    taken: set[str],
) -> Claim | None:
    """quantize(dequantize(x) * gamma + beta)  ->  IntAffine, for any chain of + - * / with constants.

    At least one of them is an array: numbers alone make a table.
    """
    found, y = _read(flow, root, taken), spec.qparams
    if found is None or y is None or max(found.multiplier.size, found.bias.size) == 1:
        return None
    if flow.shape(found.codes) != spec.shape:
        return None
    multiplier = (found.multiplier * found.x.scale / y.scale).astype(np.float32)
    bias = found.bias / y.scale - multiplier.astype(np.float64) * found.x.zero_point
    layer = IntAffine(
        name=root.name,
        inputs=(found.codes,),
        output=spec.name,
        multiplier=multiplier,
        bias=bias.astype(np.float32),
        low=limits[0],
        high=limits[1],
    )
    return Claim(spec.name, (layer,), (spec,), found.nodes)


def _read(flow: Flow, node: Node, taken: set[str]) -> _Affine | None:
    if node.op not in _STEPS or node.name in taken:
        return None
    array = flow.param(node.args[1])
    if array is None or array.dtype != np.float32 or array.ndim > len(node.shape):
        return None
    source, inner = flow.dequantized(node.args[0]), flow.node(node.args[0])
    if source is not None:
        before: _Affine | None = _Affine(*source, np.ones(()), np.zeros(()))
    else:
        before = None if inner is None else _read(flow, inner, taken)
    if before is None:
        return None
    multiplier, bias = _STEPS[node.op](before, array.astype(np.float64))
    if not np.isfinite(multiplier).all():
        return None
    return _Affine(before.codes, before.x, multiplier, bias, (node.name, *before.nodes))


_STEPS = {
    "relax.add": lambda f, c: (f.multiplier, f.bias + c),
    "relax.subtract": lambda f, c: (f.multiplier, f.bias - c),
    "relax.multiply": lambda f, c: (f.multiplier * c, f.bias * c),
    "relax.divide": lambda f, c: (f.multiplier / c, f.bias / c),
}
