"""Softmax with its masks, layer norm, RMS norm and embeddings, matched from the operator at their end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from tvm import relax

from tvmcomp.build.lower.claim import Claim
from tvmcomp.build.lower.conv import scalar
from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.compress.reference import exp_factors, mask_steps
from tvmcomp.compress.weight_form import UniformWeight
from tvmcomp.graph.layers import (
    Embedding,
    IntLayerNorm,
    IntSoftmax,
    Layer,
    MaskSteps,
    QParams,
    TensorSpec,
)

__all__ = ["embedding_layer", "layer_norm_layer", "match_softmax"]

# Bits below a step of the scores that masks keep, unless all they hold is zero and nothing.
_FRACTION = 4
_LONGEST_ROW = 1 << 16
_LEAST_EPSILON = 2.0**-20


@dataclass
class _Scores:
    """softmax(f * codes + masks): what is left of the expression after its masks and factors.

    masks: each with the factor it is multiplied by.
    """

    expr: relax.Expr
    factor: float = 1.0
    masks: list[tuple[relax.Expr, float]] = field(default_factory=list)
    absorbed: list[str] = field(default_factory=list)


def match_softmax(flow: Flow, root: Node, spec: TensorSpec, taken: set[str]) -> Claim | None:
    """quantize(softmax(dequantize(x) * f + mask))  ->  IntSoftmax, behind a MaskSteps per computed mask.

    Masks are float32 and never quantized: only the scores in front of them carry codes.
    """
    if root.op != "relax.nn.softmax" or int(root.value.attrs.axis) % len(root.shape) != (
        len(root.shape) - 1
    ):
        return None
    scores = _Scores(root.args[0])
    while (source := flow.dequantized(scores.expr)) is None:
        node = flow.node(scores.expr)
        if node is None or node.name in taken or node.shape != root.shape:
            return None
        if not _peel(flow, node, scores):
            return None
    name, x = source
    y = spec.qparams
    if y is None or scores.factor <= 0 or flow.shape(name) != root.shape:
        return None
    return _softmax_claim(flow, root, spec, name, QParams(x.scale * scores.factor, 0), scores)


def _peel(flow: Flow, node: Node, scores: _Scores) -> bool:
    """Take a mask or a factor off; False for anything else."""
    if node.op in ("relax.multiply", "relax.divide"):
        number = scalar(flow, node.args[1])
        if number is None or number == 0.0:
            return False
        scores.factor *= number if node.op == "relax.multiply" else 1.0 / number
        scores.expr = node.args[0]
    elif node.op == "relax.add":
        ordered = sorted(node.args, key=lambda arg: not _is_scores(flow, arg, node.shape))
        if not _is_scores(flow, ordered[0], node.shape):
            return False
        scores.expr = ordered[0]
        scores.masks.append((ordered[1], scores.factor))
    else:
        return False
    scores.absorbed.append(node.name)
    return True


def _is_scores(flow: Flow, expr: relax.Expr, shape: tuple[int, ...]) -> bool:
    """Whether codes are reached from here by masks and factors alone."""
    node = flow.node(expr)
    if node is None or node.shape != shape:
        return False
    if flow.dequantized(expr) is not None:
        return True
    inner = node.args if node.op == "relax.add" else node.args[:1]
    known = node.op in ("relax.add", "relax.multiply", "relax.divide")
    return known and any(_is_scores(flow, arg, shape) for arg in inner)


def _softmax_claim(
    flow: Flow, root: Node, spec: TensorSpec, codes: str, x: QParams, scores: _Scores
) -> Claim | None:
    constants = [flow.param(mask) for mask, _ in scores.masks]
    values = [
        None if array is None else array.astype(np.float32) * np.float32(factor)
        for array, (_, factor) in zip(constants, scores.masks, strict=True)
    ]
    shift = 0 if all(_is_coarse(value, x.scale) for value in values) else _FRACTION
    length = root.shape[-1]
    exps = exp_factors(x.scale, length, masked=bool(values), shift=shift)
    if exps is None or length > _LONGEST_ROW or spec.qparams is None:
        return None
    step = float(np.float32(x.scale)) / (1 << shift)
    layers: list[Layer] = []
    specs: list[TensorSpec] = []
    held: list[np.ndarray | None] = []
    for (mask, factor), value in zip(scores.masks, values, strict=True):
        name = f"{root.name}.mask{len(held)}"
        if value is not None:
            own = MaskSteps(name=name, inputs=(), output=name, step=step)
            held.append(mask_steps(own, value))
            continue
        source = flow.resolve(mask)
        if not isinstance(source, relax.Var) or str(source.ty.dtype) != "float32" or factor <= 0:
            return None
        own = MaskSteps(name=name, inputs=(source.name,), output=name, step=step / factor)
        layers.append(own)
        specs.append(TensorSpec(name, flow.shape(source.name), "int32"))
        held.append(None)
    layer = IntSoftmax(
        name=root.name,
        inputs=(codes, *(own.output for own in layers)),
        output=spec.name,
        exps=exps,
        inverse_scale=float(np.float32(1.0 / spec.qparams.scale)),
        masks=tuple(held),
        shift=shift,
    )
    return Claim(spec.name, (*layers, layer), (*specs, spec), (root.name, *scores.absorbed))


def _is_coarse(mask: np.ndarray | None, scale: float) -> bool:
    """Whether a constant mask loses nothing by whole steps: all of it is near one, or behind every exponential."""
    if mask is None:
        return False
    steps = mask[np.isfinite(mask)].astype(np.float64) / scale
    near = np.abs(steps - np.rint(steps)) < 1 / 64
    return bool(np.all(near | (steps * scale < -64.0)))


def layer_norm_layer(
    flow: Flow, root: Node, spec: TensorSpec, limits: tuple[int, int]
) -> IntLayerNorm | None:
    """layer_norm(dequantize(x), gamma, beta) and rms_norm(dequantize(x), gamma)  ->  IntLayerNorm."""
    source, y, attrs = flow.dequantized(root.args[0]), spec.qparams, root.value.attrs
    rank, channels = len(root.shape), root.shape[-1]
    if source is None or y is None or channels > _LONGEST_ROW:
        return None
    if [int(axis) % rank for axis in attrs.axes] != [rank - 1]:
        return None
    centered = root.op == "relax.nn.layer_norm"
    parts = [flow.param(arg) for arg in root.args[1:]]
    if any(part is None for part in parts):
        return None
    arrays = [np.asarray(part, np.float64).reshape(-1) for part in parts]
    gamma = arrays[0] if not centered or attrs.scale else np.ones(channels)
    beta = arrays[1] if centered and attrs.center else np.zeros(channels)
    name, x = source
    power = channels * channels if centered else channels
    factor = 1.0 if centered else float(np.sqrt(channels))
    return IntLayerNorm(
        name=root.name,
        inputs=(name,),
        output=spec.name,
        multiplier=(gamma * factor / y.scale).astype(np.float32),
        bias=(beta / y.scale).astype(np.float32),
        epsilon=max(float(np.float32(attrs.epsilon * power / x.scale**2)), _LEAST_EPSILON),
        centered=centered,
        low=limits[0],
        high=limits[1],
    )


def embedding_layer(flow: Flow, root: Node, y: QParams | None, output: str) -> Embedding | None:
    """take(dequantize_weight(w), indices), rows of w  ->  Embedding; None for an index of another dtype."""
    weight, index = flow.weight(root.args[0]), flow.resolve(root.args[1])
    if not isinstance(weight, UniformWeight) or len(weight.shape) != 2:
        return None
    axis = root.value.attrs.axis
    if axis is None or int(axis) != 0 or not isinstance(index, relax.Var):
        return None
    if str(index.ty.dtype) not in ("int32", "int64") or flow.param(index) is not None:
        return None
    scales, codes = weight.scale_per_channel(0), weight.centered()
    if scales is None or codes is None:
        return None
    real = scales.astype(np.float64) / (1.0 if y is None else y.scale)
    return Embedding(
        name=root.name,
        inputs=(index.name,),
        output=output,
        weight=codes,
        scale=real.astype(np.float32),
    )
