"""Every integer layer but convolutions and tables, matched from the quantize node at its end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tvmcomp.build.lower.claim import Claim, bounds, code_range
from tvmcomp.build.lower.conv import clip_bounds
from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.build.lower.pool import average_layer, max_pool_layer, mean_layer
from tvmcomp.build.lower.resize import resize_layer
from tvmcomp.build.lower.unary import requantize
from tvmcomp.compress.reference import make_table
from tvmcomp.graph.layers import (
    Concat,
    Copy,
    Dequantize,
    IntAdd,
    IntAvgPool,
    IntMul,
    Layer,
    QParams,
    Quantize,
    TensorSpec,
    View,
)

__all__ = ["match_dequantize", "match_integer", "match_quantize"]

Limits = tuple[int, int]
Source = tuple[str, QParams]


def match_integer(flow: Flow, quantize: Node, taken: set[str]) -> Claim | None:
    """quantize([relu | clip](op(dequantize(a), ...)))  ->  the integer layer of `op`, None if it has none."""
    y = flow.qparams(quantize)
    root = flow.node(quantize.args[0])
    if y is None or root is None or root.name in taken:
        return None
    if root.op == "relax.dequantize":
        return _requantized(flow, quantize, y)
    low, high, absorbed = -np.inf, np.inf, [root.name]
    clip = clip_bounds(flow, root)
    if clip is not None:
        inner = flow.node(root.args[0])
        if inner is None or inner.name in taken or flow.only_user(inner) is None:
            return None
        (low, high), root = clip, inner
        absorbed.append(root.name)
    spec = TensorSpec(quantize.name, root.shape, quantize.dtype, y)
    limits = bounds(low, high, y, quantize.dtype)
    if root.op in _ARITHMETIC:
        layer = _ARITHMETIC[root.op](flow, root, spec, limits)
        return None if layer is None else Claim(spec.name, (layer,), (spec,), tuple(absorbed))
    if root.op in _SAME_SCALE and limits == code_range(quantize.dtype):
        return _same_scale(flow, root, spec, tuple(absorbed))
    return None


def _requantized(flow: Flow, quantize: Node, y: QParams) -> Claim | None:
    """quantize(dequantize(codes))  ->  Table"""
    source = flow.dequantized(quantize.args[0])
    if source is None:
        return None
    spec = TensorSpec(quantize.name, quantize.shape, quantize.dtype, y)
    table = requantize(source[0], spec, source[1], flow.dtype(source[0]))
    return Claim(spec.name, (table,), (spec,))


def match_quantize(flow: Flow, node: Node) -> Claim | None:
    """quantize(float x)  ->  Quantize; a permute in front of it folds into it."""
    y = flow.qparams(node)
    if y is None:
        return None
    source, perm = flow.resolve(node.args[0]), None
    absorbed: tuple[str, ...] = ()
    inner = flow.node(source)
    if (
        inner is not None
        and inner.op == "relax.permute_dims"
        and len(inner.shape) <= 4
        and flow.only_user(inner) is not None
    ):
        perm, source, absorbed = _axes(inner), flow.resolve(inner.args[0]), (inner.name,)
    layer = Quantize(name=node.name, inputs=(source.name,), output=node.name, perm=perm)
    return Claim(node.name, (layer,), (TensorSpec(node.name, node.shape, node.dtype, y),), absorbed)


def match_dequantize(flow: Flow, node: Node) -> Claim | None:
    """dequantize(codes)  ->  Dequantize, for whatever float operator reads it."""
    source = flow.dequantize_source(node)
    if source is None:
        return None
    layer = Dequantize(name=node.name, inputs=(source[0],), output=node.name)
    return Claim(node.name, (layer,), (TensorSpec(node.name, node.shape, "float32"),))


def _axes(node: Node) -> tuple[int, ...]:
    axes = node.value.attrs.axes
    rank = len(node.shape)
    return tuple(int(a) for a in axes) if axes is not None else tuple(reversed(range(rank)))


def _pair(flow: Flow, root: Node) -> tuple[Source, Source] | None:
    a, b = (flow.dequantized(arg) for arg in root.args)
    return None if a is None or b is None else (a, b)


def _add(flow: Flow, root: Node, spec: TensorSpec, limits: Limits) -> Layer | None:
    pair, y = _pair(flow, root), spec.qparams
    if pair is None or y is None or any(flow.node(arg).shape != root.shape for arg in root.args):  # type: ignore[union-attr]
        return None
    (a_name, a), (b_name, b) = pair
    scale_a, scale_b = np.float32(a.scale / y.scale), np.float32(b.scale / y.scale)
    bias = np.float32(
        y.zero_point - np.float64(scale_a) * a.zero_point - np.float64(scale_b) * b.zero_point
    )
    return IntAdd(
        name=root.name,
        inputs=(a_name, b_name),
        output=spec.name,
        scale_a=float(scale_a),
        scale_b=float(scale_b),
        bias=float(bias),
        low=limits[0],
        high=limits[1],
    )


def _multiply(flow: Flow, root: Node, spec: TensorSpec, limits: Limits) -> Layer | None:
    pair, y = _pair(flow, root), spec.qparams
    if pair is None or y is None or len(root.shape) != 4:
        return None
    shapes = [flow.node(arg).shape for arg in root.args]  # type: ignore[union-attr]
    if shapes[0] != root.shape:
        pair, shapes = (pair[1], pair[0]), shapes[::-1]
    n, _, _, c = root.shape
    if shapes[0] != root.shape or shapes[1] not in (root.shape, (n, 1, 1, c)):
        return None
    (a_name, a), (b_name, b) = pair
    return IntMul(
        name=root.name,
        inputs=(a_name, b_name),
        output=spec.name,
        multiplier=float(np.float32(a.scale * b.scale / y.scale)),
        low=limits[0],
        high=limits[1],
    )


def _average(
    build: Callable[[Flow, Node, str, str, Limits], IntAvgPool | None],
) -> Callable[[Flow, Node, TensorSpec, Limits], Layer | None]:
    def match(flow: Flow, root: Node, spec: TensorSpec, limits: Limits) -> Layer | None:
        source = flow.dequantized(root.args[0])
        return None if source is None else build(flow, root, source[0], spec.name, limits)

    return match


def _concat(flow: Flow, root: Node, spec: TensorSpec, limits: Limits) -> Layer | None:
    if limits != code_range(spec.dtype) or spec.qparams is None:
        return None
    rank = len(root.shape)
    if int(root.value.attrs.axis) % rank != rank - 1:
        return None
    sources = [flow.dequantized(field) for field in flow.fields(root.args[0])]
    if not sources or any(source is None for source in sources):
        return None
    known = [source for source in sources if source is not None]
    if any(flow.dtype(name) != spec.dtype for name, _ in known):
        return None
    tables = tuple(
        None if x == spec.qparams else make_table(lambda v: v, x, spec.qparams, spec.dtype)
        for _, x in known
    )
    names = tuple(name for name, _ in known)
    return Concat(name=root.name, inputs=names, output=spec.name, tables=tables)


def same_scale_layer(flow: Flow, root: Node, source: str, output: str) -> Layer | None:
    """The layer of an operator that only moves or compares elements, on codes or on float32 alike."""
    if root.op == "relax.nn.max_pool2d":
        return max_pool_layer(flow, root, source, output)
    if root.op == "relax.permute_dims":
        if len(root.shape) != 4:
            return None
        return Copy(name=root.name, inputs=(source,), output=output, perm=_axes(root))
    if root.op == "relax.image.resize2d":
        return resize_layer(flow, root, source, output)
    return View(name=root.name, inputs=(source,), output=output)


def _same_scale(
    flow: Flow, root: Node, spec: TensorSpec, absorbed: tuple[str, ...]
) -> Claim | None:
    """quantize(op(dequantize(x)))  ->  op on the codes, then a table where the scales differ."""
    source = flow.dequantized(root.args[0])
    if source is None:
        return None
    name, x = source
    dtype = flow.dtype(name)
    direct = (x, dtype) == (spec.qparams, spec.dtype)
    moved = spec if direct else TensorSpec(f"{spec.name}.moved", spec.shape, dtype, x)
    layer = same_scale_layer(flow, root, name, moved.name)
    if layer is None:
        return None
    if direct:
        return Claim(spec.name, (layer,), (spec,), absorbed)
    return Claim(spec.name, (layer, requantize(moved.name, spec, x, dtype)), (moved, spec), absorbed)


_ARITHMETIC: dict[str, Callable[[Flow, Node, TensorSpec, Limits], Layer | None]] = {
    "relax.add": _add,
    "relax.multiply": _multiply,
    "relax.mean": _average(mean_layer),
    "relax.nn.avg_pool2d": _average(average_layer),
    "relax.concat": _concat,
}
_SAME_SCALE = (
    "relax.nn.max_pool2d",
    "relax.permute_dims",
    "relax.image.resize2d",
    "relax.reshape",
    "relax.flatten",
    "relax.squeeze",
    "relax.expand_dims",
)
