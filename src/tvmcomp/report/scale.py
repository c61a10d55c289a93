"""Whether a tensor's scale suits its values: the noise it makes beside the least any scale would make."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tvmcomp.runtime.capture import Stored

__all__ = ["Range"]

_KEPT = 1 << 16  # values kept of each sample
_MANY = 1 << 10
_FRACTIONS = (1.0, 0.9, 0.8, 0.65, 0.5, 0.35, 0.25)


@dataclass(eq=False)
class Range:
    """Values of one tensor over samples, at most 65,536 evenly spaced ones and the extremes of each."""

    parts: list[np.ndarray] = field(default_factory=list)

    def add(self, values: np.ndarray) -> None:
        """Those of one sample."""
        flat = values.ravel()
        flat = flat[np.isfinite(flat)]
        if flat.size:
            step = -(-flat.size // _KEPT)
            self.parts.append(np.append(flat[::step], [flat.min(), flat.max()]))

    @property
    def telling(self) -> bool:
        """Whether there are enough values to show the range of others; the ends of a few say little."""
        return sum(map(len, self.parts)) >= _MANY

    def loss_db(self, codes: Stored) -> float | None:
        """Noise of the codes' scale over that of the best range, in dB; None for nothing but zeros."""
        values = np.concatenate(self.parts) if self.parts else np.zeros(1)
        low, high = min(values.min(), 0.0), max(values.max(), 0.0)
        if low == high or codes.scale is None:
            return None
        info = np.iinfo(codes.dtype)
        symmetric = info.min < 0 and codes.zero_point == 0
        noises = []
        for fraction in _FRACTIONS:
            if symmetric:
                scale, zero = fraction * max(high, -low) / info.max, 0.0
            else:
                scale = fraction * (high - low) / (info.max - info.min)
                zero = float(np.rint(info.min - fraction * low / scale))
            noises.append(_noise(values, scale, zero, info))
        own = _noise(values, codes.scale, codes.zero_point or 0, info)
        best = min(noises)
        if own <= best or best == 0:
            return 0.0
        return 10 * math.log10(own / best)


def _noise(values: np.ndarray, scale: float, zero: float, info: np.iinfo) -> float:
    codes = np.clip(np.rint(values / scale) + zero, info.min, info.max)
    return float(np.square((codes - zero) * scale - values).sum())
