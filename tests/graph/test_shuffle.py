"""Reshapes around a permutation of an image, as they are on NHWC."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from toys import run
from tvmcomp.frontend import from_torch
from tvmcomp.frontend.block import op_name
from tvmcomp.graph.canonical import canonicalize
from tvmcomp.graph.shuffle import common_factors, shuffled_axes

N, C, H, W = 2, 12, 4, 6
X = np.arange(N * C * H * W).reshape(N, C, H, W)

CASES = {
    "pixel shuffle": ((N, 3, 2, 2, H, W), (0, 1, 4, 2, 5, 3), (N, 3, 2 * H, 2 * W)),
    "pixel shuffle, phases first": ((N, 2, 2, 3, H, W), (0, 3, 4, 1, 5, 2), (N, 3, 2 * H, 2 * W)),
    "channel shuffle": ((N, 3, 4, H, W), (0, 2, 1, 3, 4), (N, C, H, W)),
    "pixels into channels": ((N, C, 2, 2, 3, 2), (0, 3, 5, 1, 2, 4), (N, 4 * C, 2, 3)),
    "tokens": ((N, C, H * W), (0, 2, 1), None),
    "boxes": ((N, 3, 4, H, W), (0, 1, 3, 4, 2), None),
}


@pytest.mark.parametrize("case", CASES)
def test_elements_end_where_they_should(case: str) -> None:
    parts, axes, target = CASES[case]
    want = X.reshape(parts).transpose(axes)
    found = shuffled_axes(X.shape, parts, axes, target)
    assert found is not None
    shape, permutation = found
    moved = X.transpose(0, 2, 3, 1).reshape(shape).transpose(permutation)
    if target is not None:
        want = want.reshape(target).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(moved.reshape(want.shape), want)
    # No more axes than it takes.
    assert len(shape) == len(permutation) <= RANKS[case]


RANKS = {
    "pixel shuffle": 5,
    "pixel shuffle, phases first": 4,
    "channel shuffle": 3,
    "pixels into channels": 6,
    "tokens": 1,
    "boxes": 4,
}


def test_axes_that_share_no_factors_are_not_taken_apart() -> None:
    assert common_factors((2, 6, 4), (2, 4, 6)) is None
    assert common_factors((2, 6), (2, 5)) is None
    assert common_factors((1, 8, 6), (2, 4, 6)) == ([2, 4, 6], [[], [0, 1], [2]], [[0], [1], [2]])
    assert common_factors((1, 1), (1,)) == ([], [[], []], [[]])


class Shuffles(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.second = nn.Conv2d(3, 8, 1)
        self.third = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.second(nn.functional.pixel_shuffle(self.first(x), 2))
        tokens = x.flatten(2).transpose(1, 2).tanh()
        back = tokens.transpose(1, 2).reshape(x.shape)
        return tokens, self.third(back)


def test_pixels_stay_nhwc_between_convolutions() -> None:
    torch.manual_seed(0)
    net, x = Shuffles().eval(), torch.randn(1, 3, 4, 5)
    with torch.no_grad():
        want = net(x)
    model = canonicalize(from_torch(net, x))
    for got, wanted in zip(run(model)({"x": x.numpy()}).values(), want, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=0, atol=1e-5)
    (block,) = model.module["main"].body.blocks
    moves = [op for binding in block.bindings if (op := op_name(binding.value)) == "permute_dims"]
    # The input, the pixel shuffle, the output.
    assert len(moves) == 3
