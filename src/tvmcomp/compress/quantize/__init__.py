"""Quantization passes."""

from __future__ import annotations

from tvmcomp.compress.quantize.uniform import FloatActivations, QuantizeUniform, StaticActivations

__all__ = ["FloatActivations", "QuantizeUniform", "StaticActivations"]
