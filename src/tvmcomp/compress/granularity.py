"""Granularity: how many weights share one scale (or one table): a tensor, a slice of an axis, a group along an axis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from tvmcomp.errors import QuantizeError

__all__ = ["Granularity", "PerAxis", "PerGroup", "PerTensor", "PerToken", "resolve"]


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor: parameters of shape ()."""

    def parameter_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the scales of a tensor of `shape`."""
        return ()

    def blocks(self, tensor: np.ndarray) -> np.ndarray:
        """`tensor` with the elements that share a scale flattened into the last axis."""
        return tensor.reshape(-1)

    def expand(self, parameter: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """`parameter` as an array that broadcasts to `shape`."""
        return parameter


@dataclass(frozen=True)
class PerAxis:
    """One scale per index of `axis`: parameters of shape [n]; axis None is the operator's output channels."""

    axis: int | None = None

    def parameter_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the scales of a tensor of `shape`."""
        return (shape[_checked_axis(self, self.axis, shape)],)

    def blocks(self, tensor: np.ndarray) -> np.ndarray:
        """`tensor` with the elements that share a scale flattened into the last axis."""
        axis = _checked_axis(self, self.axis, tensor.shape)
        return np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)

    def expand(self, parameter: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """`parameter` as an array that broadcasts to `shape`."""
        axis = _checked_axis(self, self.axis, shape)
        return parameter.reshape([n if i == axis else 1 for i, n in enumerate(shape)])


@dataclass(frozen=True)
class PerGroup:
    """One scale per `size` neighbours along `axis`: parameters of the tensor's shape with that axis divided.

    Axis None is the operator's input channels, along which its sum runs.
    """

    size: int
    axis: int | None = None

    def parameter_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the scales of a tensor of `shape`."""
        axis = _checked_axis(self, self.axis, shape)
        length = shape[axis]
        if self.size < 1 or length % self.size:
            fits = [n for n in range(1, length + 1) if length % n == 0]
            near = sorted(sorted(fits, key=lambda n: abs(n - self.size))[:3])
            raise QuantizeError(
                f"group size {self.size} does not divide axis {axis} of length {length}; "
                f"use {', '.join(map(str, near))}"
            )
        return (*shape[:axis], length // self.size, *shape[axis + 1 :])

    def blocks(self, tensor: np.ndarray) -> np.ndarray:
        """`tensor` with the elements that share a scale moved into the last axis."""
        axis = _checked_axis(self, self.axis, tensor.shape)
        groups = self.parameter_shape(tensor.shape)[axis]
        split = (*tensor.shape[:axis], groups, self.size, *tensor.shape[axis + 1 :])
        return np.moveaxis(tensor.reshape(split), axis + 1, -1)

    def expand(self, parameter: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """`parameter` as an array that broadcasts to `shape`."""
        return np.repeat(parameter, self.size, axis=_checked_axis(self, self.axis, shape))


@dataclass(frozen=True)
class PerToken:
    """One scale per row of the last axis of an activation, such as one token's features; not for weights."""


Granularity: TypeAlias = PerTensor | PerAxis | PerGroup


def resolve(granularity: Granularity, *, out_axis: int, in_axis: int) -> Granularity:
    """`granularity` with its axis filled in for a weight with these output and input channel axes."""
    if isinstance(granularity, PerTensor) or granularity.axis is not None:
        return granularity
    return replace(granularity, axis=out_axis if isinstance(granularity, PerAxis) else in_axis)


def _checked_axis(granularity: Granularity, axis: int | None, shape: tuple[int, ...]) -> int:
    if axis is None:
        raise ValueError(f"{granularity} must be resolved before it meets a tensor")
    if not 0 <= axis < len(shape):
        raise QuantizeError(
            f"{granularity} does not fit a tensor of shape {list(shape)}; "
            f"use an axis from 0 to {len(shape) - 1}"
        )
    return axis
