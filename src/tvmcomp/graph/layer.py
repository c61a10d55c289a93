"""What all layers of the layer graph have in common, and the tensors between them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Layer", "QParams", "TensorSpec"]


@dataclass(frozen=True)
class QParams:
    """real = scale * (code - zero_point); per tensor; `scale` is a float32 value held exactly."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class TensorSpec:
    """One tensor between layers: logical shape, dtype ("float32", "uint8", "int8"), qparams if it is codes.

    Indices of a client may be "int32" or "int64"; steps of a softmax's mask are "int32".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    qparams: QParams | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One step of a network: named tensors in, one out."""

    name: str
    inputs: tuple[str, ...]
    output: str
