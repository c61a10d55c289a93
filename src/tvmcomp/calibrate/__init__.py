"""Calibration: statistics of a model's tensors over sample data, by observers that stream."""

from __future__ import annotations

from tvmcomp.calibrate.collect import Execute, Progress, collect, taps
from tvmcomp.calibrate.entropy import Entropy
from tvmcomp.calibrate.observers import MSE, MinMax, MovingAverage, Observer, Percentile
from tvmcomp.calibrate.samples import Data, Samples, load_samples
from tvmcomp.calibrate.stats import Calibration, TensorStats

__all__ = [
    "MSE",
    "Calibration",
    "Data",
    "Entropy",
    "Execute",
    "MinMax",
    "MovingAverage",
    "Observer",
    "Percentile",
    "Progress",
    "Samples",
    "TensorStats",
    "collect",
    "load_samples",
    "taps",
]
