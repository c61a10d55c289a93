"""LSTM, GRU and RNN from torch, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from toys import run
from tvmcomp.errors import ModelError
from tvmcomp.frontend import from_torch
from tvmcomp.frontend.block import op_name
from tvmcomp.graph.canonical import canonicalize

STEPS, BATCH, INPUT, HIDDEN = 3, 2, 4, 5
X = np.random.default_rng(0).standard_normal((STEPS, BATCH, INPUT)).astype(np.float32)


def _close(got: dict[str, np.ndarray], want: list[np.ndarray]) -> None:
    for actual, expected in zip(got.values(), want, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)


class WithState(nn.Module):
    """All results of a recurrent module, from given initial states."""

    def __init__(self, part: nn.RNNBase) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, last = self.part(x, (state if len(state) > 1 else state[0]) if state else None)
        return (y, *last) if isinstance(last, tuple) else (y, last)


CASES = {
    "LSTM both ways, two layers": (nn.LSTM(4, 5, 2, bidirectional=True), 0),
    "LSTM from a state": (nn.LSTM(4, 5, batch_first=True), 2),
    "GRU both ways": (nn.GRU(4, 5, bidirectional=True), 1),
    "GRU without biases": (nn.GRU(4, 5, bias=False), 0),
    "RNN": (nn.RNN(4, 5), 0),
    "RNN of ReLU": (nn.RNN(4, 5, nonlinearity="relu"), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_against_torch(case: str) -> None:
    part, states = CASES[case]
    net = WithState(part.eval())
    count = part.num_layers * (2 if part.bidirectional else 1)
    x = torch.from_numpy(X.transpose(1, 0, 2).copy() if part.batch_first else X)
    inputs = (x, *(torch.full((count, BATCH, HIDDEN), 0.3 + s) for s in range(states)))
    with torch.no_grad():
        want = [value.numpy() for value in net(*inputs)]
    model = from_torch(net, inputs)
    arrays = {
        name: value.numpy() for name, value in zip(model.signature.inputs, inputs, strict=True)
    }
    _close(run(canonicalize(model))(arrays), want)


def test_the_inputs_of_all_steps_are_one_product() -> None:
    model = canonicalize(from_torch(nn.LSTM(4, 5).eval(), torch.from_numpy(X)))
    (block,) = model.module["main"].body.blocks
    products = sum(op_name(binding.value) == "matmul" for binding in block.bindings)
    # The first step's state is zero and its product folded into a bias.
    assert products == 1 + STEPS - 1


def test_a_projected_state_is_refused() -> None:
    with pytest.raises(ModelError, match="proj_size"):
        from_torch(nn.LSTM(4, 5, proj_size=2).eval(), torch.from_numpy(X))
