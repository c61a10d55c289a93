"""Exported programs as PyTorch's PT2E flow leaves them: integer layers, pairs where they stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch import nn

from tvmcomp.build.lower import lower
from tvmcomp.compress.quantize import adopt_weights
from tvmcomp.compress.reference import run
from tvmcomp.errors import ModelError
from tvmcomp.frontend import from_torch
from tvmcomp.frontend.torch import load_pt2
from tvmcomp.graph.canonical import canonicalize
from tvmcomp.graph.layers import (
    DynamicConv,
    DynamicQuantize,
    FloatConv,
    IntConv,
    LayerGraph,
    Opaque,
)
from tvmcomp.model import Model

ops = torch.ops.quantized_decomposed


def codes(*shape: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(-127, 128, shape).astype(np.int8))


def lowered(model: Model) -> LayerGraph:
    return lower(adopt_weights(canonicalize(model)))


class Pairs(nn.Module):
    """conv, relu, flatten, linear with the pairs of XNNPACK's quantizer (int8) or of x86's (uint8)."""

    def __init__(self, dtype: torch.dtype, *, folded: bool = True, low: int | None = None) -> None:
        super().__init__()
        info = torch.iinfo(dtype)
        self.dtype, self.low, self.high = dtype, info.min if low is None else low, info.max
        self.folded = folded
        self.register_buffer("w", codes(8, 3, 3, 3))
        self.register_buffer("ws", torch.linspace(0.002, 0.004, 8, dtype=torch.float64))
        self.register_buffer("wz", torch.zeros(8, dtype=torch.int64))
        self.register_buffer("v", codes(5, 8 * 16, seed=1))
        self.v_real = nn.Parameter(self.v.float() * 0.003)
        self.bias = nn.Parameter(torch.linspace(-1, 1, 8))

    def pair(self, x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
        q = ops.quantize_per_tensor(x, scale, zero, self.low, self.high, self.dtype)
        return ops.dequantize_per_tensor(q, scale, zero, self.low, self.high, self.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zero = 3 if self.dtype == torch.int8 else 131
        w = ops.dequantize_per_channel(self.w, self.ws, self.wz, 0, -127, 127, torch.int8)
        c = torch.relu(nn.functional.conv2d(self.pair(x, 0.03, zero), w, self.bias, padding=1))
        f = self.pair(self.pair(c, 0.05, zero - 3).flatten(1), 0.05, zero - 3)
        v = self.v
        if not self.folded:
            v = ops.quantize_per_tensor(self.v_real, 0.003, 0, -127, 127, torch.int8)
        v = ops.dequantize_per_tensor(v, 0.003, 0, -127, 127, torch.int8)
        return self.pair(nn.functional.linear(f, v), 0.2, zero)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
@pytest.mark.parametrize("folded", [True, False])
def test_a_static_program_runs_in_integers(dtype: torch.dtype, folded: bool) -> None:
    module = Pairs(dtype, folded=folded).eval()
    check(module)


def test_a_narrower_range_of_codes_is_kept() -> None:
    # A clip of the input itself is the one operator on floats.
    graph = check(Pairs(torch.int8, low=0).eval(), opaque=1)
    assert {(conv.low, conv.high) for conv in graph.layers if isinstance(conv, IntConv)} == {
        (0, 127)
    }


def check(module: nn.Module, opaque: int = 0) -> LayerGraph:
    x = torch.from_numpy(np.random.default_rng(7).standard_normal((1, 3, 4, 4)).astype(np.float32))
    graph = lowered(from_torch(module, (x,)))
    assert sum(isinstance(layer, IntConv) for layer in graph.layers) == 2
    assert not any(isinstance(layer, FloatConv) for layer in graph.layers)
    assert sum(isinstance(layer, Opaque) for layer in graph.layers) == opaque
    if opaque:
        return graph
    (actual,) = run(graph, {graph.inputs[0]: x.numpy()}).values()
    expected = module(x).detach().numpy()
    assert len(np.unique(expected)) > 3
    # Torch multiplies with the inverse of a scale, so a tie may fall to the other side.
    assert np.abs(actual - expected).max() <= 0.201
    return graph


def test_a_saved_program_is_read(tmp_path: Path) -> None:
    module = Pairs(torch.int8).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 4, 4),)), tmp_path / "q.pt2")
    graph = lowered(load_pt2(tmp_path / "q.pt2"))
    assert sum(isinstance(layer, IntConv) for layer in graph.layers) == 2


class Dynamic(nn.Module):
    """A convolution and a linear layer whose inputs are quantized at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", codes(8, 3, 3, 3))
        self.register_buffer("v", codes(5, 8 * 4, seed=1))

    def pair(self, x: torch.Tensor) -> torch.Tensor:
        scale, zero = ops.choose_qparams(x, 0, 255, 1e-7, torch.uint8)
        q = ops.quantize_per_tensor(x, scale, zero, 0, 255, torch.uint8)
        return ops.dequantize_per_tensor(q, scale, zero, 0, 255, torch.uint8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w, v = (
            ops.dequantize_per_tensor(c, 0.003, 0, -127, 127, torch.int8) for c in (self.w, self.v)
        )
        return nn.functional.linear(self.pair(nn.functional.conv2d(self.pair(x), w).flatten(1)), v)


def test_a_dynamic_program_multiplies_codes() -> None:
    module = Dynamic().eval()
    x = torch.from_numpy(np.random.default_rng(7).standard_normal((1, 3, 4, 4)).astype(np.float32))
    graph = lowered(from_torch(module, (x,)))
    assert sum(isinstance(layer, DynamicConv) for layer in graph.layers) == 2
    assert sum(isinstance(layer, DynamicQuantize) for layer in graph.layers) == 2
    assert not any(isinstance(layer, FloatConv | Opaque) for layer in graph.layers)
    (actual,) = run(graph, {graph.inputs[0]: x.numpy()}).values()
    np.testing.assert_allclose(actual, module(x).numpy(), atol=0.02)


def test_codes_of_an_unknown_type_are_refused() -> None:
    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = ops.quantize_per_tensor(x, 0.1, 0, 0, 10, torch.float8_e4m3fn)
            return ops.dequantize_per_tensor(q, 0.1, 0, 0, 10, torch.float8_e4m3fn)

    with pytest.raises(ModelError, match="float8"):
        from_torch(Half(), (torch.zeros(2, 2),))
