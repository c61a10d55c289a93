"""Random convolutions with their layouts, for the tests and the benchmark of the convolution kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tvmcomp.graph.layers import FloatConv, IntConv, QParams, TensorSpec
from tvmcomp.kernels.layout import Layout


@dataclass(frozen=True)
class Case:
    """A convolution: shapes, dtypes and layouts. pads: (top, left, bottom, right)."""

    batch: int = 1
    height: int = 6
    width: int = 6
    inputs: int = 16
    outputs: int = 32
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    x_dtype: str = "uint8"
    y_dtype: str = "uint8"
    residual: str | None = None
    x_pitch: int = 0
    y_pitch: int = 0
    r_pitch: int = 0
    x_halo: int | None = None
    y_halo: int = 0
    r_halo: int = 0
    zero_point: int = 7
    low: float | None = None
    high: float | None = None
    table: bool = False
    scale: float = 1.0
    narrow: bool = False  # weights of 7 bits
    wide: bool = False  # weights of 9 bits

    @property
    def floats(self) -> bool:
        return self.x_dtype == "float32"

    @property
    def out(self) -> tuple[int, int]:
        def size(n: int, before: int, after: int, axis: int) -> int:
            span = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            return (n + before + after - span) // self.strides[axis] + 1

        top, left, bottom, right = self.pads
        return size(self.height, top, bottom, 0), size(self.width, left, right, 1)


@dataclass(frozen=True, eq=False)
class Problem:
    """A case with numbers: the layer, its tensors and layouts, its input arrays."""

    layer: IntConv | FloatConv
    tensors: dict[str, TensorSpec]
    layouts: dict[str, Layout]
    arrays: list[np.ndarray]


def make(case: Case, seed: int = 0) -> Problem:
    """Seeded random data; integer outputs spread over the range of their dtype."""
    rng = np.random.default_rng(seed)
    inner = case.inputs // case.groups
    depth = inner * case.kernel[0] * case.kernel[1]
    shapes = {
        "x": (case.batch, case.height, case.width, case.inputs),
        "y": (case.batch, *case.out, case.outputs),
    }
    dtypes = {"x": case.x_dtype, "y": case.y_dtype}
    geometry = {
        "x": (max(case.pads) if case.x_halo is None else case.x_halo, case.x_pitch),
        "y": (case.y_halo, case.y_pitch),
        "r": (case.r_halo, case.r_pitch),
    }
    if case.residual:
        shapes["r"], dtypes["r"] = shapes["y"], case.residual
    points = {"x": 3, "y": case.zero_point, "r": 11}
    tensors = {
        name: TensorSpec(
            name,
            shape,
            dtypes[name],
            None if dtypes[name] == "float32" else QParams(0.1, points[name]),
        )
        for name, shape in shapes.items()
    }
    layouts = {
        name: replace(
            Layout.dense(shape, np.dtype(dtypes[name]).itemsize),
            halo=geometry[name][0],
            pitch=geometry[name][1] or shape[-1],
        )
        for name, shape in shapes.items()
    }
    arrays = [_random(rng, shapes[n], dtypes[n]) for n in shapes if n != "y"]
    shape = (case.outputs, *case.kernel, inner)
    common = {
        "name": "conv",
        "inputs": ("x", "r") if case.residual else ("x",),
        "output": "y",
        "strides": case.strides,
        "pads": case.pads,
        "dilation": case.dilation,
        "groups": case.groups,
    }
    if case.floats:
        floats = FloatConv(
            weight=(rng.standard_normal(shape) / np.sqrt(depth)).astype(np.float32),
            bias=rng.standard_normal(case.outputs).astype(np.float32),
            low=-np.inf if case.low is None else case.low,
            high=np.inf if case.high is None else case.high,
            **common,
        )
        return Problem(floats, tensors, layouts, arrays)
    real = case.y_dtype == "float32"
    info = np.iinfo("uint8" if real else case.y_dtype)
    spread = 60 * case.scale / (np.sqrt(depth) * 74 * 74)
    weight = rng.integers(-64, 65, shape) if case.narrow else rng.integers(-128, 128, shape)
    weight = weight.astype(np.int8)
    if case.wide:
        weight = rng.choice(np.array([-255, 254, 255, -1], np.int16), shape)
    middle = 128 if case.x_dtype == "uint8" else 0
    multiplier = (spread * rng.uniform(0.5, 1.5, case.outputs)).astype(np.float32)
    sums = weight.reshape(case.outputs, -1).sum(axis=1, dtype=np.int64)
    zero = 0 if real else points["y"]
    center = rng.uniform(-20, 20, case.outputs) + (info.min + info.max) / 2 - zero
    layer = IntConv(
        weight=weight,
        multiplier=multiplier,
        bias=(center - multiplier * sums * middle).astype(np.float32),
        low=(-np.inf if real else info.min) if case.low is None else case.low,
        high=(np.inf if real else info.max) if case.high is None else case.high,
        residual_scale=0.37 if case.residual else 0.0,
        table=rng.permutation(256).astype(np.uint8).view(case.y_dtype) if case.table else None,
        **common,
    )
    return Problem(layer, tensors, layouts, arrays)


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype == "float32":
        return rng.standard_normal(shape).astype(np.float32)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)
