"""Every integer layer but convolutions and tables, matched from the quantize node at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tvmcomp.build.lower.affine import match_affine
from tvmcomp.build.lower.claim import Claim, bounds, code_range
from tvmcomp.build.lower.conv import clip_bounds
from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.build.lower.move import pad_layer, slice_layer
from tvmcomp.build.lower.pool import average_layer, max_pool_layer
from tvmcomp.build.lower.reduce import reduced
from tvmcomp.build.lower.resize import resize_layer
from tvmcomp.build.lower.rowwise import embedding_layer, layer_norm_layer, match_softmax
from tvmcomp.build.lower.unary import requantization, requantize
from tvmcomp.compress.reference import quantize
from tvmcomp.graph.layers import (
    Concat,
    Copy,
    Dequantize,
    IntAdd,
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
    if root.op == "relax.mean" and (claim := _mean(flow, root, spec, limits)) is not None:
        return replace(claim, absorbed=tuple(absorbed))
    if root.op in _ARITHMETIC:
        layer = _ARITHMETIC[root.op](flow, root, spec, limits)
        if layer is not None:
            return Claim(spec.name, (layer,), (spec,), tuple(absorbed))
    claim = match_affine(flow, root, spec, limits, taken)
    if claim is None and limits == code_range(quantize.dtype):
        claim = match_softmax(flow, root, spec, taken)
        if claim is None and root.op in _SAME_SCALE:
            claim = _same_scale(flow, root, spec)
    if claim is None:
        return None
    return replace(claim, absorbed=tuple(dict.fromkeys((*absorbed, *claim.absorbed))))


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
    if inner is not None and inner.op == "relax.permute_dims" and flow.only_user(inner) is not None:
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
    """Both quantized operands, first one of the result's shape; None if neither has it."""
    a, b = (flow.dequantized(arg) for arg in root.args)
    if a is None or b is None:
        return None
    ordered = (a, b) if flow.shape(a[0]) == root.shape else (b, a)
    return ordered if flow.shape(ordered[0][0]) == root.shape else None


def _add(flow: Flow, root: Node, spec: TensorSpec, limits: Limits) -> Layer | None:
    pair, y = _pair(flow, root), spec.qparams
    if pair is None or y is None:
        return None
    (a_name, a), (b_name, b) = pair
    return IntAdd(
        name=root.name,
        inputs=(a_name, b_name),
        output=spec.name,
        scale_a=float(np.float32(a.scale / y.scale)),
        scale_b=float(np.float32(b.scale / y.scale)),
        low=limits[0],
        high=limits[1],
    )


def _multiply(flow: Flow, root: Node, spec: TensorSpec, limits: Limits) -> Layer | None:
    pair, y = _pair(flow, root), spec.qparams
    if pair is None or y is None:
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


def _average(flow: Flow, root: Node, spec: TensorSpec, limits: Limits) -> Layer | None:
    source = flow.dequantized(root.args[0])
    return None if source is None else average_layer(flow, root, source[0], spec.name, limits)


def _mean(flow: Flow, root: Node, spec: TensorSpec, limits: Limits) -> Claim | None:
    source = flow.dequantized(root.args[0])
    return None if source is None else reduced(flow, root, source, spec, limits)


def _concat(flow: Flow, root: Node, spec: TensorSpec, limits: Limits) -> Layer | None:
    if limits != code_range(spec.dtype) or spec.qparams is None:
        return None
    names: list[str] = []
    tables: list[np.ndarray | None] = []
    constants: list[np.ndarray | None] = []
    for part in flow.fields(root.args[0]):
        source, array = flow.dequantized(part), flow.param(part)
        if source is not None and flow.dtype(source[0]) == spec.dtype:
            names.append(source[0])
            same = source[1] == spec.qparams
            dtypes = (spec.dtype, spec.dtype)
            tables.append(None if same else requantization(source[1], spec.qparams, *dtypes))
            constants.append(None)
        elif array is not None and array.dtype == np.float32:
            tables.append(None)
            constants.append(quantize(array, spec.qparams, spec.dtype))
        else:
            return None
    if not names:
        return None
    return Concat(
        name=root.name,
        inputs=tuple(names),
        output=spec.name,
        tables=tuple(tables),
        axis=int(root.value.attrs.axis or 0) % len(root.shape),
        constants=tuple(constants) if len(names) < len(constants) else (),
    )


def _layer_norm(flow: Flow, root: Node, spec: TensorSpec, limits: Limits) -> Layer | None:
    return layer_norm_layer(flow, root, spec, limits)


def _take(flow: Flow, root: Node, spec: TensorSpec, limits: Limits) -> Layer | None:
    whole = limits == code_range(spec.dtype)
    return embedding_layer(flow, root, spec.qparams, spec.name) if whole else None


def same_scale_layer(flow: Flow, root: Node, source: str, output: str) -> Layer | None:
    """The layer of an operator that only moves or compares elements, on codes or on float32 alike."""
    if root.op == "relax.nn.max_pool2d":
        return max_pool_layer(flow, root, source, output)
    if root.op == "relax.strided_slice":
        return slice_layer(flow, root, source, output)
    if root.op == "relax.permute_dims":
        return Copy(name=root.name, inputs=(source,), output=output, perm=_axes(root))
    if root.op == "relax.image.resize2d":
        return resize_layer(flow, root, source, output)
    return View(name=root.name, inputs=(source,), output=output)


def _same_scale(flow: Flow, root: Node, spec: TensorSpec) -> Claim | None:
    """quantize(op(dequantize(x)))  ->  op on the codes, then a table where the scales differ."""
    source = flow.dequantized(root.args[0])
    if source is None:
        return None
    name, x = source
    dtype = flow.dtype(name)
    direct = (x, dtype) == (spec.qparams, spec.dtype)
    moved = spec if direct else TensorSpec(f"{spec.name}.moved", spec.shape, dtype, x)
    claim = _moved(flow, root, name, moved)
    if claim is None or direct:
        return claim
    layers = (*claim.layers, requantize(moved.name, spec, x, dtype))
    return Claim(spec.name, layers, (*claim.specs, spec))


def _moved(flow: Flow, root: Node, source: str, spec: TensorSpec) -> Claim | None:
    """The layers of an operator that keeps its codes."""
    if root.op == "relax.max" and spec.qparams is not None:
        return reduced(flow, root, (source, spec.qparams), spec)
    layer: Layer | None = (
        pad_layer(root, source, spec)
        if root.op == "relax.nn.pad"
        else same_scale_layer(flow, root, source, spec.name)
    )
    return None if layer is None else Claim(spec.name, (layer,), (spec,))


_ARITHMETIC: dict[str, Callable[[Flow, Node, TensorSpec, Limits], Layer | None]] = {
    "relax.add": _add,
    "relax.multiply": _multiply,
    "relax.nn.avg_pool2d": _average,
    "relax.concat": _concat,
    "relax.nn.layer_norm": _layer_norm,
    "relax.nn.rms_norm": _layer_norm,
    "relax.take": _take,
}
_SAME_SCALE = (
    "relax.nn.max_pool2d",
    "relax.permute_dims",
    "relax.image.resize2d",
    "relax.reshape",
    "relax.flatten",
    "relax.squeeze",
    "relax.expand_dims",
    "relax.strided_slice",
    "relax.nn.pad",
    "relax.max",
)
