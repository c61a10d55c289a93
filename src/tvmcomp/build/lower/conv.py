"""Convolutions and dense layers with what follows them, as one integer or float layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from tvm import relax
from tvm.tirx import FloatImm, IntImm

from tvmcomp.build.lower.claim import Claim, bounds
from tvmcomp.build.lower.dynamic import dynamic_source
from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.compress.weight_form import UniformWeight
from tvmcomp.errors import ModelError
from tvmcomp.graph.layers import DynamicConv, FloatConv, IntConv, QParams, TensorSpec

__all__ = ["clip_bounds", "match_conv", "scalar"]

_CONVOLUTIONS = ("relax.nn.conv2d", "relax.matmul")
# The numbers of a float32 result, in which one step is 1.
_REAL = QParams(1.0, 0)


@dataclass
class _Chain:
    """A convolution and the nodes after it that fold into it."""

    conv: Node
    end: Node
    bias: np.ndarray
    residual: relax.Expr | None = None
    low: float = -np.inf
    high: float = np.inf
    quantize: Node | None = None
    nodes: list[str] = field(default_factory=list)

    def extend(self, node: Node) -> None:
        self.nodes.append(self.end.name)
        self.end = node

    def leave_float(self, flow: Flow) -> None:
        """The float result is quantized by a layer of its own."""
        if self.quantize is not None:
            self.end = flow.by_name[self.nodes.pop()]
            self.quantize = None


def match_conv(flow: Flow, node: Node, taken: set[str]) -> Claim | None:
    """quantize(clip(conv2d(dequantize(x), w) + b [+ dequantize(r)]))  ->  IntConv of codes
             clip(conv2d(dequantize(x), w) + b [+ r])                  ->  IntConv with a float32 result
             clip(conv2d(dynamic_quantize(x), w) + b [+ r])            ->  DynamicConv
             clip(conv2d(x, w) + b [+ r])                              ->  FloatConv

    `taken` names nodes other groups own already; they end the chain.
    """
    if node.op not in _CONVOLUTIONS or node.name in taken:
        return None
    weight = _weight(flow, node)
    if weight is None:
        return None
    return (
        _integer(flow, node, weight, taken)
        or _dynamic(flow, node, weight, taken)
        or _float(flow, node, weight, taken)
    )


def _weight(flow: Flow, node: Node) -> UniformWeight | np.ndarray | None:
    """The second operand in its compressed form or as an array; None if it is computed at run time."""
    form = flow.weight(node.args[1])
    weight = form if isinstance(form, UniformWeight) else flow.param(node.args[1])
    return weight if weight is not None and _supported(node, weight.shape) else None


def _supported(node: Node, weight_shape: tuple[int, ...]) -> bool:
    if node.op == "relax.matmul":
        return len(weight_shape) == 2 and len(node.shape) >= 2
    attrs = node.value.attrs
    return (attrs.data_layout, attrs.kernel_layout) == ("NHWC", "OHWI")


def _grow(flow: Flow, conv: Node, channels: int, taken: set[str]) -> _Chain:
    """Follow single uses: bias, then a residual, then relu or clip, then quantize."""
    chain = _Chain(conv, conv, np.zeros(channels, np.float32))
    while (user := flow.only_user(chain.end)) is not None and user.name not in taken:
        if user.op == "relax.add" and chain.residual is None and chain.high == np.inf:
            if not _absorb_add(flow, chain, user):
                break
        elif (clip := clip_bounds(flow, user)) is not None:
            chain.low, chain.high = (float(np.clip(old, *clip)) for old in (chain.low, chain.high))
            chain.extend(user)
        elif user.op == "relax.quantize":
            chain.quantize = user
            chain.extend(user)
            break
        else:
            break
    return chain


def _absorb_add(flow: Flow, chain: _Chain, user: Node) -> bool:
    if chain.low != -np.inf:
        return False
    left, right = user.args
    mine = flow.node(left)
    other = right if mine is not None and mine.name == chain.end.name else left
    bias = flow.param(other)
    channels = chain.bias.size
    if bias is not None:
        if bias.size not in (1, channels) or (bias.size > 1 and bias.shape[-1] != channels):
            return False
        chain.bias = chain.bias + np.broadcast_to(bias.reshape(-1).astype(np.float32), channels)
        chain.extend(user)
        return True
    source = flow.node(other)
    if source is None or source.shape != user.shape:
        return False
    if chain.end.shape != user.shape:
        return False
    chain.residual = flow.resolve(other)
    chain.extend(user)
    return True


def clip_bounds(flow: Flow, node: Node) -> tuple[float, float] | None:
    """The interval a relu or clip node clips to, None for any other node."""
    if node.op == "relax.nn.relu":
        return 0.0, np.inf
    if node.op == "relax.clip":
        low, high = (scalar(flow, arg) for arg in node.args[1:3])
        if low is not None and high is not None:
            return low, high
    return None


def scalar(flow: Flow, expr: relax.Expr) -> float | None:
    """The number behind a prim value, a constant or a one-element parameter; None for anything else."""
    if isinstance(expr, IntImm | FloatImm):
        return float(expr.value)
    array = flow.param(expr)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def _geometry(node: Node, weight: np.ndarray) -> dict[str, object]:
    if node.op == "relax.matmul":
        return {"weight": np.ascontiguousarray(weight.T)[:, None, None, :]}
    attrs = node.value.attrs
    pads = tuple(int(p) for p in attrs.padding)
    return {
        "weight": weight,
        "strides": tuple(int(s) for s in attrs.strides),
        "pads": pads if len(pads) == 4 else (*pads, *pads),
        "dilation": tuple(int(d) for d in attrs.dilation),
        "groups": int(attrs.groups),
    }


def _integer(
    flow: Flow, node: Node, weight: UniformWeight | np.ndarray, taken: set[str]
) -> Claim | None:
    source = flow.dequantized(node.args[0])
    if source is None or not isinstance(weight, UniformWeight):
        return None
    coded = _codes(node, weight)
    if coded is None:
        return None
    codes, scales = coded
    chain = _grow(flow, node, scales.size, taken)
    x_name, x = source
    y = None if chain.quantize is None else flow.qparams(chain.quantize)
    residual = None if chain.residual is None else flow.dequantized(chain.residual)
    if y is None or (chain.residual is not None and residual is None):
        if node.dtype != "float32":
            return None
        chain.leave_float(flow)
        y = None
    geometry = _geometry(node, codes)
    step = _REAL if y is None else y
    residual_scale = 0.0 if residual is None else residual[1].scale / step.scale
    multiplier, bias = _requantization(scales, chain.bias, x, step, residual)
    low, high = chain.low, chain.high
    if y is not None:
        low, high = bounds(low, high, y, chain.end.dtype)
    inputs = [x_name]
    if chain.residual is not None:
        inputs.append(residual[0] if residual is not None else chain.residual.name)
    layer = IntConv(
        name=node.name,
        inputs=tuple(inputs),
        output=chain.end.name,
        multiplier=multiplier,
        bias=bias,
        low=low,
        high=high,
        residual_scale=float(np.float32(residual_scale)),
        **geometry,  # type: ignore[arg-type]
    )
    return _claim(chain, layer, y)


def _requantization(
    scales: np.ndarray,
    bias: np.ndarray,
    x: QParams,
    y: QParams,
    residual: tuple[str, QParams] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """multiplier and bias of IntConv's docstring, computed in float64 and rounded once."""
    with np.errstate(over="ignore"):
        multiplier = (scales.astype(np.float64) * x.scale / y.scale).astype(np.float32)
    total = bias.astype(np.float64) / y.scale
    if residual is not None:
        total -= np.float64(np.float32(residual[1].scale / y.scale)) * residual[1].zero_point
    with np.errstate(over="ignore"):
        rounded = total.astype(np.float32)
    if not (np.isfinite(multiplier).all() and np.isfinite(rounded).all()):
        raise ModelError(
            f"scales {x.scale:g} and {y.scale:g} around a convolution are too far apart for float32; "
            "correct them in the quantized model"
        )
    return multiplier, rounded


def _codes(node: Node, weight: UniformWeight) -> tuple[np.ndarray, np.ndarray] | None:
    """Codes less their zero points and a float32 scale per output channel; None for a weight that is not that."""
    scales = weight.scale_per_channel(0 if node.op == "relax.nn.conv2d" else 1)
    codes = weight.centered()
    return None if scales is None or codes is None else (codes, scales)


def _dynamic(
    flow: Flow, node: Node, weight: UniformWeight | np.ndarray, taken: set[str]
) -> Claim | None:
    source = dynamic_source(flow, node)
    coded = _codes(node, weight) if isinstance(weight, UniformWeight) else None
    if source is None or coded is None:
        return None
    names, form = source
    if form.per_token and node.op != "relax.matmul":
        return None
    geometry, chain = _float_chain(flow, node, coded[0], taken)
    residual = () if chain.residual is None else (chain.residual.name,)
    layer = DynamicConv(
        name=node.name,
        inputs=(*names, *residual),
        output=chain.end.name,
        weight_scale=coded[1],
        bias=chain.bias,
        low=chain.low,
        high=chain.high,
        **geometry,  # type: ignore[arg-type]
    )
    return _claim(chain, layer, None)


def _float_chain(
    flow: Flow, node: Node, weight: np.ndarray, taken: set[str]
) -> tuple[dict[str, object], _Chain]:
    """Geometry and chain of a layer whose result is float32: a quantize behind it is a layer of its own."""
    geometry = _geometry(node, weight)
    chain = _grow(flow, node, geometry["weight"].shape[0], taken)  # type: ignore[attr-defined]
    chain.leave_float(flow)
    return geometry, chain


def _float(
    flow: Flow, node: Node, weight: UniformWeight | np.ndarray, taken: set[str]
) -> Claim | None:
    array = weight.dequantized() if isinstance(weight, UniformWeight) else weight
    if node.dtype != "float32" or array.dtype != np.float32:
        return None
    geometry, chain = _float_chain(flow, node, array, taken)
    inputs = [flow.resolve(node.args[0]).name]
    if chain.residual is not None:
        inputs.append(chain.residual.name)
    layer = FloatConv(
        name=node.name,
        inputs=tuple(inputs),
        output=chain.end.name,
        bias=chain.bias,
        low=chain.low,
        high=chain.high,
        **geometry,  # type: ignore[arg-type]
    )
    return _claim(chain, layer, None)


def _claim(
    chain: _Chain, layer: IntConv | DynamicConv | FloatConv, qparams: QParams | None
) -> Claim:
    end = chain.end
    spec = TensorSpec(end.name, end.shape, end.dtype, qparams)
    return Claim(
        end.name, (layer,), (spec,), tuple(name for name in chain.nodes if name != end.name)
    )
