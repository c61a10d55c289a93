"""Transposed convolutions as ordinary ones, against torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from toys import run
from tvmcomp.frontend import from_torch
from tvmcomp.frontend.block import op_name
from tvmcomp.graph.canonical import canonicalize
from tvmcomp.model import Model

# kernel, stride, padding, output padding, dilation, groups
CASES = (
    (2, 2, 0, 0, 1, 1),
    (3, 2, 1, 1, 1, 1),
    (4, 2, 1, 0, 1, 2),
    (3, 1, 1, 0, 1, 1),
    (5, 3, 2, 1, 1, 1),
    (2, 3, 0, 0, 1, 4),
    (3, 2, 3, 0, 2, 1),
    (1, 2, 1, 1, 1, 1),
)


class All(nn.Module):
    """Every case on one input, an output each."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.ConvTranspose2d(4, 8, k, s, p, o, groups=g, dilation=d) for k, s, p, o, d, g in CASES
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part(x) for part in self.parts)


def _ops(model: Model) -> list[str]:
    (block,) = model.module["main"].body.blocks
    return [op_name(binding.value) for binding in block.bindings]


def _check(net: nn.Module, x: Tensor) -> Model:
    net.eval()
    with torch.no_grad():
        want = net(x)
    model = canonicalize(from_torch(net, x))
    got = run(model)({next(iter(model.signature.inputs)): x.numpy()})
    expected = want if isinstance(want, tuple) else (want,)
    for actual, wanted in zip(got.values(), expected, strict=True):
        np.testing.assert_allclose(actual, wanted.numpy(), rtol=0, atol=1e-5)
    return model


def test_every_stride_padding_dilation_and_group() -> None:
    torch.manual_seed(0)
    model = _check(All(), torch.randn(2, 4, 5, 6))
    assert "nn.conv2d_transpose" not in _ops(model)


def test_bias_batch_norm_and_relu_stay_with_the_convolution() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, 1, 1), nn.BatchNorm2d(6), nn.ReLU())
    net[1].running_var.uniform_(0.5, 2.0)
    net[1].running_mean.normal_()
    ops = _ops(_check(net, torch.randn(1, 4, 5, 5)))
    start = ops.index("nn.conv2d")
    # The pixel shuffle follows; the last permutation gives the output back in NCHW.
    assert ops[start:] == [
        *("nn.conv2d", "add", "nn.relu"),
        *("reshape", "permute_dims", "reshape", "permute_dims"),
    ]


def test_one_dimension() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv1d(3, 4, 5, stride=2, padding=2),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm1d(6),
    )
    ops = _ops(_check(net, torch.randn(2, 3, 16)))
    assert "nn.conv2d" in ops
    assert not any("1d" in op or "transpose" in op for op in ops)
