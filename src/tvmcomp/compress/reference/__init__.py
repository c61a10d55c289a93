"""The numpy definition of every layer: each kernel equals it on every input.

`compute` is one layer, `run` a whole graph, `simulate_layer` the float simulation the codes are
held against; `make_table` builds the 256-entry tables.
"""

from __future__ import annotations

from tvmcomp.compress.reference.arithmetic import (
    code_range,
    dequantize,
    fma_f32,
    make_table,
    quantize,
    round_clip,
)
from tvmcomp.compress.reference.convolution import accumulate
from tvmcomp.compress.reference.dynamic import dynamic_quantize, fake_quantize
from tvmcomp.compress.reference.interpret import run
from tvmcomp.compress.reference.layers import average_factors, compute, compute_outputs
from tvmcomp.compress.reference.rowwise import exp_factors, exp_table, mask_steps
from tvmcomp.compress.reference.simulate import simulate_layer

__all__ = [
    "accumulate",
    "average_factors",
    "code_range",
    "compute",
    "compute_outputs",
    "dequantize",
    "dynamic_quantize",
    "exp_factors",
    "exp_table",
    "fake_quantize",
    "fma_f32",
    "make_table",
    "mask_steps",
    "quantize",
    "round_clip",
    "run",
    "simulate_layer",
]
