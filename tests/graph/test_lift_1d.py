"""One-dimensional convolutions and pools as two-dimensional ones, against torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from toys import run
from tvmcomp.frontend import from_torch
from tvmcomp.frontend.block import op_name
from tvmcomp.graph.canonical import canonicalize


class Audio(nn.Module):
    """What stands between one-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(1, 6, 8, stride=2, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(2)
        )
        self.left = nn.Conv1d(6, 4, 3, padding=2, dilation=2)
        self.right = nn.Sequential(nn.ConstantPad1d((1, 1), 0.0), nn.Conv1d(6, 6, 3, groups=6))
        self.scale = nn.Parameter(torch.rand(10, 1))
        self.last = nn.Conv1d(10, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        y = torch.cat((self.left(x).sigmoid(), self.right(x)), 1) * self.scale
        y = nn.functional.avg_pool1d(self.last(y), 2)
        return self.head(y.mean(-1)), y.transpose(1, 2).softmax(-1)


def test_an_audio_network() -> None:
    torch.manual_seed(0)
    net, x = Audio().eval(), torch.randn(2, 1, 40)
    with torch.no_grad():
        want = net(x)
    model = canonicalize(from_torch(net, x))
    for got, wanted in zip(run(model)({"x": x.numpy()}).values(), want, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=0, atol=1e-5)
    (block,) = model.module["main"].body.blocks
    ops = [op_name(binding.value) for binding in block.bindings]
    assert ops.count("nn.conv2d") == 4
    assert not any("1d" in op for op in ops)
    # Padding and batch norm have joined their convolutions; no element moves before the second output.
    assert not {"nn.pad", "nn.batch_norm", "permute_dims"} & set(ops)
    # Reshapes only at the ends: the input, the head, the second output.
    assert ops.count("reshape") <= 3
