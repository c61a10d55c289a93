"""Seeded weights under which every branch of a network matters and activations keep their range."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

__all__ = ["seeded", "settled"]

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
# Gain 1 leaves attention logits of normalised tokens within one of each other: nearly uniform attention.
_PROJECTION = 1.6


def seeded(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights in place; what a constructor left at zero or at a tiny layer scale is drawn too.

    Gains of norms and layer scales lie in [0.5, 1.5]; convolutions and dense layers keep their input's
    variance; queries and keys are larger, so that attention is far from uniform.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn: set[int] = set()
    with torch.no_grad():
        for name, module in net.named_modules():
            if isinstance(module, _NORMS) or "norm" in type(module).__name__.lower():
                _draw(module, drawn, lambda p: p.uniform_(0.5, 1.5, generator=generator), "weight")
            elif isinstance(module, _WEIGHTED):
                _draw(module, drawn, lambda p, n=name: _fan_in(p, n, generator), "weight")
            elif isinstance(module, nn.Embedding):
                _draw(module, drawn, lambda p: p.normal_(0.0, 1.0, generator=generator), "weight")
            elif isinstance(module, nn.RNNBase):
                width = 1.5 / math.sqrt(module.hidden_size)
                for parameter in module.parameters(recurse=False):
                    parameter.uniform_(-width, width, generator=generator)
                    drawn.add(id(parameter))
        for name, parameter in net.named_parameters():
            if id(parameter) not in drawn:
                _other(name, parameter, generator)
    return net.eval()


def _draw(module: nn.Module, drawn: set[int], draw: object, name: str) -> None:
    parameter = getattr(module, name, None)
    if isinstance(parameter, nn.Parameter):
        draw(parameter)  # type: ignore[operator]
        drawn.add(id(parameter))


def _fan_in(weight: torch.Tensor, name: str, generator: torch.Generator) -> None:
    last = name.rpartition(".")[2]
    attends = any(word in last for word in ("qkv", "query", "key", "q_proj", "k_proj"))
    gain = _PROJECTION if attends else math.sqrt(2.0) if weight.ndim > 2 else 1.2
    weight.normal_(0.0, gain / math.sqrt(weight[0].numel()), generator=generator)


def _other(name: str, parameter: torch.Tensor, generator: torch.Generator) -> None:
    """Biases, tokens, position tables, layer scales and whatever else a network holds."""
    last = name.rpartition(".")[2]
    if last in ("gamma", "layer_scale", "scale") or ".ls" in name:
        parameter.uniform_(0.5, 1.0, generator=generator)
    elif parameter.ndim <= 1 and last == "weight":
        parameter.uniform_(0.5, 1.5, generator=generator)
    elif parameter.ndim <= 1:
        parameter.normal_(0.0, 0.1, generator=generator)
    elif bool((parameter == parameter.flatten()[0]).all()) or float(parameter.std()) < 0.1:
        parameter.normal_(0.0, 0.3, generator=generator)


def settled(net: nn.Module, inputs: Mapping[str, torch.Tensor]) -> nn.Module:
    """Batch norm statistics as `inputs` leave them, the way training would from real data."""
    norms = [
        module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    if norms:
        with torch.no_grad():
            net(*inputs.values())
    for norm in norms:
        norm.eval()
        norm.momentum = 0.1
        if norm.running_var is not None:
            norm.running_var.clamp_(min=1e-3)
    return net
