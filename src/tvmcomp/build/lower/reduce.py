"""Reductions over neighbouring axes as pools over one of them."""

from __future__ import annotations

from math import prod

from tvmcomp.build.lower.claim import Claim, code_range
from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.graph.layers import IntAvgPool, Layer, MaxPool, QParams, TensorSpec, View

__all__ = ["reduced"]


def reduced(
    flow: Flow,
    root: Node,
    codes: tuple[str, QParams],
    spec: TensorSpec,
    limits: tuple[int, int] | None = None,
) -> Claim | None:
    """mean(x), max(x) over axes that follow one another  ->  View, IntAvgPool or MaxPool, View.

    x: [A.., R.., C..] is seen as [A, 1, R, C], whose pool is [A, 1, 1, C]; an image whose height and width are
    reduced is pooled as it is.
    """
    source, qparams = codes
    shape, attrs = flow.shape(source), root.value.attrs
    axes = sorted(int(axis) % len(shape) for axis in attrs.axis or range(len(shape)))
    if axes != list(range(axes[0], axes[-1] + 1)):
        return None
    if len(shape) == 4 and axes == [1, 2]:
        image, window = shape, (shape[1], shape[2])
    else:
        window = (1, prod(shape[axes[0] : axes[-1] + 1]))
        image = (prod(shape[: axes[0]]), 1, window[1], prod(shape[axes[-1] + 1 :]))
    views: list[tuple[Layer, TensorSpec]] = []
    if image != shape:
        seen = TensorSpec(f"{spec.name}.rows", image, flow.dtype(source), qparams)
        views.append((_view(source, seen), seen))
        source = seen.name
    pooled = TensorSpec(f"{spec.name}.pooled", (image[0], 1, 1, image[3]), spec.dtype, spec.qparams)
    if pooled.shape == spec.shape:
        pooled = spec
    pool = (_pool(root, source, pooled, window, limits), pooled)
    last = [] if pooled is spec else [(_view(pooled.name, spec), spec)]
    layers, specs = zip(*views, pool, *last, strict=True)
    return Claim(spec.name, layers, specs)


def _view(source: str, spec: TensorSpec) -> View:
    return View(name=f"{spec.name}.view", inputs=(source,), output=spec.name)


def _pool(
    root: Node,
    source: str,
    spec: TensorSpec,
    window: tuple[int, int],
    limits: tuple[int, int] | None,
) -> Layer:
    if root.op == "relax.max":
        return MaxPool(
            name=root.name,
            inputs=(source,),
            output=spec.name,
            kernel=window,
            strides=(1, 1),
            pads=(0, 0, 0, 0),
        )
    low, high = limits or code_range(spec.dtype)
    return IntAvgPool(
        name=root.name,
        inputs=(source,),
        output=spec.name,
        kernel=window,
        strides=(1, 1),
        pads=(0, 0, 0, 0),
        count_include_pad=True,
        low=low,
        high=high,
    )
