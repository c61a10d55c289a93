"""Quantization passes."""

from __future__ import annotations

from tvmcomp.compress.quantize.activations import (
    DynamicActivations,
    FloatActivations,
    StaticActivations,
)
from tvmcomp.compress.quantize.adopt import adopt_weights, is_quantized
from tvmcomp.compress.quantize.uniform import QuantizeUniform

__all__ = [
    "DynamicActivations",
    "FloatActivations",
    "QuantizeUniform",
    "StaticActivations",
    "adopt_weights",
    "is_quantized",
]
