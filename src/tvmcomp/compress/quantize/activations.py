"""What the activations between layers are: codes of known ranges, codes of ranges taken at run time, or float32."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from tvmcomp.calibrate import MSE, Entropy, MinMax, MovingAverage, Percentile
from tvmcomp.compress.granularity import PerTensor, PerToken

__all__ = ["Activations", "DynamicActivations", "FloatActivations", "StaticActivations"]


@dataclass(frozen=True)
class StaticActivations:
    """8-bit codes of the target's activation dtype; ranges come from calibration, once."""

    observer: MinMax | MovingAverage | Percentile | MSE | Entropy = field(default_factory=MSE)


@dataclass(frozen=True)
class DynamicActivations:
    """float32 between layers; in front of each layer with a weight, codes of the range its input has right then.

    granularity: `PerTensor()`, or `PerToken()`: each row of a dense layer's input has a range of its own. A
                 convolution's windows mix rows, so its input has one range either way.
    """

    granularity: PerTensor | PerToken = field(default_factory=PerToken)


@dataclass(frozen=True)
class FloatActivations:
    """Activations stay float32: only weights shrink."""


Activations: TypeAlias = StaticActivations | DynamicActivations | FloatActivations
