"""`TensorStats`: what calibration knows about one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Calibration", "TensorStats"]


@dataclass(frozen=True, eq=False)
class TensorStats:
    """The range an observer chose, beside the range it saw; float64 arrays of shape () or [channels]."""

    low: np.ndarray
    high: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    count: int


@dataclass(frozen=True, eq=False)
class Calibration:
    """Statistics by tensor name, and which data they come from.

    digest: sha256 over names, dtypes, shapes and bytes of all samples, in order.
    """

    stats: Mapping[str, TensorStats]
    digest: str
    samples: int
