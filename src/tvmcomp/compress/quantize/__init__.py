"""Quantization passes."""

from __future__ import annotations

from tvmcomp.compress.quantize.activations import (
    DynamicActivations,
    FloatActivations,
    StaticActivations,
)
from tvmcomp.compress.quantize.uniform import QuantizeUniform

__all__ = ["DynamicActivations", "FloatActivations", "QuantizeUniform", "StaticActivations"]
