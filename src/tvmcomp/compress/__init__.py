"""Compression: recipes of passes that make a model smaller, and the one form of every compressed weight."""

from __future__ import annotations

from tvmcomp.compress.granularity import PerAxis, PerGroup, PerTensor, PerToken
from tvmcomp.compress.quantize import (
    DynamicActivations,
    FloatActivations,
    QuantizeUniform,
    StaticActivations,
)
from tvmcomp.compress.recipe import CompressResult, Recipe, compress
from tvmcomp.compress.transform import LayerReport, PassResult, SkippedLayer, Transform
from tvmcomp.compress.weight_form import (
    BlockSparseWeight,
    LookupWeight,
    UniformWeight,
    bind_weight,
    expand_weights,
    match_weight,
)

__all__ = [
    "BlockSparseWeight",
    "CompressResult",
    "DynamicActivations",
    "FloatActivations",
    "LayerReport",
    "LookupWeight",
    "PassResult",
    "PerAxis",
    "PerGroup",
    "PerTensor",
    "PerToken",
    "QuantizeUniform",
    "Recipe",
    "SkippedLayer",
    "StaticActivations",
    "Transform",
    "UniformWeight",
    "bind_weight",
    "compress",
    "expand_weights",
    "match_weight",
]
