"""Products of two activations, in float64: exact for 8-bit codes, the yardstick for floats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tvmcomp.compress.reference.arithmetic import round_clip
from tvmcomp.graph.layers import FloatMatMul, IntMatMul, MatMul, QParams

__all__ = ["float_matmul", "int_matmul", "product"]


def int_matmul(
    layer: IntMatMul,
    a: NDArray[np.integer],
    b: NDArray[np.integer],
    qparams: tuple[QParams, QParams, QParams],
    dtype: str,
) -> NDArray[np.integer]:
    """IntMatMul as its docstring defines it; `qparams` of a, b and y; int32 sums wrap, as the hardware's do."""
    shifted = (
        array.astype(np.float64) - own.zero_point
        for array, own in zip((a, b), qparams, strict=False)
    )
    total = product(layer, *shifted).astype(np.int64).astype(np.int32)
    value = total.astype(np.float32) * np.float32(layer.multiplier)
    return round_clip(value, layer.low, layer.high, dtype, qparams[2].zero_point)


def float_matmul(
    layer: FloatMatMul, a: NDArray[np.float32], b: NDArray[np.float32]
) -> NDArray[np.float32]:
    """FloatMatMul summed in float64, rounded to float32 once."""
    total = product(layer, a.astype(np.float64), b.astype(np.float64)) * layer.scale
    return np.clip(total, layer.low, layer.high).astype(np.float32)


def product(layer: MatMul, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """transpose(transpose(a, perm_a) @ transpose(b, perm_b), perm_y)."""
    left = a if layer.perm_a is None else a.transpose(layer.perm_a)
    right = b if layer.perm_b is None else b.transpose(layer.perm_b)
    total = left @ right
    return np.ascontiguousarray(total if layer.perm_y is None else total.transpose(layer.perm_y))
