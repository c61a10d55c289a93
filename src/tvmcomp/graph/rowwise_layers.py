"""Layers that reduce along the last axis, or read rows: softmax with its masks, norms, embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tvmcomp.graph.layer import Layer

__all__ = ["Embedding", "IntLayerNorm", "IntSoftmax", "MaskSteps"]


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskSteps(Layer):
    """A softmax's float32 mask in int32 steps: y = clip(rint(x / step), -STEPS_LIMIT, STEPS_LIMIT).

    -inf and NaN become STEPS_EXCLUDED; dividing is float32.
    """

    STEPS_LIMIT: ClassVar[int] = 1 << 24
    STEPS_EXCLUDED: ClassVar[int] = -(1 << 28)

    step: float


@dataclass(frozen=True, eq=False, kw_only=True)
class IntSoftmax(Layer):
    """Softmax over the last axis of x's codes, after masks in steps of scale / 2^shift are added to them:

        t = x * 2^shift + sum(masks); at least FLOOR; EXCLUDED where a mask is              int32
        d = min(max(t) - t, 16^levels - 1)                                                  >= 0
        e = rint(exps[0, d & 15] * exps[1, d >> 4 & 15] * ...)       float32 products, left to right
        r = inverse_scale / float32(sum(e))                                  the sum is exact, below 2^31
        y = clip(rint(e * r) + zero_point_y)                                        codes of y's dtype

    exps[k, i] = exp(-i * 16^k * scale / 2^shift), in row 0 times a power of two; with masks the last product is 0.
    inverse_scale = 1 / sy. masks: an int32 array that broadcasts to x, or None for the next of inputs[1:].
    FLOOR makes a row of nothing but the lowest float32 uniform, as float32 does. A row that is all EXCLUDED
    (-inf: float gives NaN) is real zero, as torch's attention gives it.
    """

    FLOOR: ClassVar[int] = (1 << 13) - MaskSteps.STEPS_LIMIT
    EXCLUDED: ClassVar[int] = MaskSteps.STEPS_EXCLUDED

    exps: np.ndarray  # float32 [levels, 16]
    inverse_scale: float
    masks: tuple[np.ndarray | None, ...] = ()
    shift: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class IntLayerNorm(Layer):
    """Layer norm, or RMS norm where not `centered`, over the last axis of C <= 65536 codes; s1, s2, d are exact.

        s1 = sum(x), s2 = sum(x * x)
        v = float32(C*s2 - s1*s1)                        d = float32(C*x - s1)                  centered
        v = float32(s2 - 2*zx*s1 + C*zx*zx)              d = float32(x - zx)                    else
        r = 1 / sqrt(v + epsilon)                                               float32, each rounded
        y = clip(rint(fma(d * r, multiplier[c], bias[c])) + zero_point_y, low, high)

    multiplier = gamma/sy, times sqrt(C) if not centered; bias = beta/sy; epsilon = eps*C*C/(sx*sx), or
    eps*C/(sx*sx), and at least 2^-20, so that a constant row is beta.
    """

    multiplier: np.ndarray  # float32 [C]
    bias: np.ndarray  # float32 [C]
    epsilon: float
    centered: bool
    low: int
    high: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedding(Layer):
    """Rows of a table by integer index: i = index + rows if index < 0 else index, clamped to 0 .. rows - 1;

        y = float32(weight[i]) * scale[i]                                            y is float32
        y = clip(rint(float32(weight[i]) * scale[i]) + zero_point_y)                 y is codes

    scale holds the row's scale sw, for codes sw/sy. x: indices [...], y: [..., C].
    """

    weight: np.ndarray  # [rows, C]; int8, or int16 within [-255, 255] as that of IntConv
    scale: np.ndarray  # float32 [rows]
