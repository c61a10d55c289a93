"""Convolutions and dense layers as dot-product kernels: layer and layouts in, `Kernel` out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from tvmcomp.graph.layers import DynamicConv, FloatConv, IntConv, TensorSpec
from tvmcomp.kernels.dot import emit
from tvmcomp.kernels.geometry import geometry_of
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.mac import Mac, mac_for
from tvmcomp.kernels.pack import pack
from tvmcomp.kernels.plan import Plan, choose_plan
from tvmcomp.kernels.rows import halo_code
from tvmcomp.kernels.spec import Epilogue, Spec
from tvmcomp.kernels.vector import Isa

__all__ = ["build_conv", "build_spec"]


def build_conv(
    layer: IntConv | DynamicConv | FloatConv,
    tensors: Mapping[str, TensorSpec],
    layouts: Mapping[str, Layout],
    isa: Isa,
    plan: Plan | None = None,
) -> Kernel | None:
    """The layer's kernel, by `plan` or by the rules; None for a table without `isa.vbmi`.

    Any grouping is served, but a group fills whole vectors: depthwise layers have a faster kernel of their own.
    """
    if isinstance(layer, IntConv) and layer.table is not None and not (isa.vnni and isa.vbmi):
        return None
    if layouts[layer.inputs[0]].halo < max(layer.pads):
        return None
    spec = build_spec(layer, tensors, layouts, isa, plan)
    digest = hashlib.sha256(repr((spec, isa)).encode()).hexdigest()[:20]
    return Kernel(
        key=f"dot:{digest}",
        func=emit(spec, isa),
        emitter="dot",
        isa=isa.name,
        constants=pack(layer, spec, first_sum(tensors[layer.inputs[0]], spec.mac)),
        plan=spec.plan,
    )


def build_spec(
    layer: IntConv | DynamicConv | FloatConv,
    tensors: Mapping[str, TensorSpec],
    layouts: Mapping[str, Layout],
    isa: Isa,
    plan: Plan | None,
) -> Spec:
    """What the layer's kernel is emitted from."""
    x, y = tensors[layer.inputs[0]], tensors[layer.output]
    dynamic = isinstance(layer, DynamicConv)
    own = 3 if dynamic else 1
    residual = tensors[layer.inputs[own]] if len(layer.inputs) > own else None
    scales = layouts[layer.inputs[1]] if dynamic else None
    geometry = geometry_of(
        layer,
        layouts[x.name],
        layouts[y.name],
        layouts[residual.name] if residual else None,
        scales if scales is not None and scales.nbytes > scales.itemsize else None,
    )
    mac = mac_for(x.dtype, layer.weight, isa)
    return Spec(
        geometry=geometry,
        plan=plan or choose_plan(geometry, isa, mac),
        epilogue=_epilogue(layer, x, y, residual),
        mac=mac,
        dtype=x.dtype,
        lanes=isa.lanes,
        y=layouts[y.name],
        zero=halo_code(y),
        start=isinstance(layer, IntConv) and first_sum(x, mac) != 0,
    )


def first_sum(x: TensorSpec, mac: Mac) -> int:
    """What a channel's sum starts at, for a sum of its weights of 1; undoes zero point and shift of x."""
    return -(mac.shift + halo_code(x))


def _epilogue(
    layer: IntConv | DynamicConv | FloatConv,
    x: TensorSpec,
    y: TensorSpec,
    residual: TensorSpec | None,
) -> Epilogue:
    # Half of int32's range, for rounding may lift a value above its bound; a NaN is wide, too.
    wide = isinstance(layer, IntConv) and not _bound(layer) < 2**30
    info = np.finfo("float32") if y.dtype == "float32" else np.iinfo(y.dtype)
    bounds = {
        "low": float(layer.low) if layer.low > info.min else None,
        "high": float(layer.high) if layer.high < info.max else None,
    }
    return Epilogue(
        dtype=y.dtype,
        residual=residual.dtype if residual else None,
        table=isinstance(layer, IntConv) and layer.table is not None,
        wide=wide,
        dynamic=isinstance(layer, DynamicConv),
        **bounds,
    )


def _bound(layer: IntConv) -> float:
    """An upper bound of |value| before rounding."""
    weights = np.abs(layer.weight.reshape(layer.weight.shape[0], -1).astype(np.int64)).sum(axis=1)
    value = np.abs(layer.multiplier.astype(np.float64)) * weights * 255
    return float((value + np.abs(layer.bias)).max() + abs(layer.residual_scale) * 255)
