"""Recurrent layers in int8: products on integers, gates and states in float32, near what 8 bits of x and h allow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tvmcomp as tc
from tvmcomp.compress.quantize.graph import Graph
from tvmcomp.compress.quantize.recurrence import recurrent
from tvmcomp.frontend import from_onnx, from_torch
from tvmcomp.graph.canonical import canonicalize
from tvmcomp.graph.layers import Dequantize, FloatConv, IntAdd, IntConv, IntMul, Table
from tvmcomp.model import Model

STEPS, WIDTH, TAGS = 12, 8, 3
CELLS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
# Measured, the same from torch and ONNX: 45.1, 38.0 and 40.8. With gates and states as codes too, at most 38.0, 27.0
# and 35.9.
LEAST_DB = {"LSTM": 42.0, "GRU": 35.0, "RNN": 38.5}


class Tagger(nn.Module):
    """[N, STEPS, WIDTH] -> a score per tag and step, both ways."""

    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = cell(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * WIDTH, TAGS)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.cell(x)[0])


def tagger(cell: str) -> Tagger:
    """Weights of twice the usual size, so that states move over their whole range."""
    torch.manual_seed(0)
    net = Tagger(CELLS[cell]).eval()
    with torch.no_grad():
        for weight in net.cell.parameters():
            weight.mul_(2)
    return net


def imported(net: nn.Module, source: str, folder: Path) -> Model:
    example = (torch.zeros(1, STEPS, WIDTH),)
    if source == "torch":
        return from_torch(net, example)
    path = folder / "net.onnx"
    torch.onnx.export(net, example, path, dynamo=True, verbose=False)
    return from_onnx(path)


@pytest.mark.parametrize(
    ("cell", "source"), [("LSTM", "torch"), ("LSTM", "onnx"), ("GRU", "onnx"), ("RNN", "torch")]
)
def test_only_what_enters_a_product_is_codes(cell: str, source: str, tmp_path: Path) -> None:
    net = tagger(cell)
    model = imported(net, source, tmp_path)
    (name,) = model.signature.inputs
    rng = np.random.default_rng(1)
    calibration, samples = (
        rng.standard_normal((count, STEPS, WIDTH)).astype(np.float32) for count in (32, 16)
    )
    exe = tc.compile(tc.compress(model, "int8", {name: calibration}))
    graph = exe.build.graph
    assert graph is not None
    kinds = {type(layer) for layer in graph.layers}
    # Every product is on integers, and nothing rounds between two products but the second's input.
    assert IntConv in kinds
    assert kinds.isdisjoint({FloatConv, Dequantize, IntAdd, IntMul, Table})
    exe.save(tmp_path / "net.tvmcomp")
    with tc.load(tmp_path / "net.tvmcomp") as network:
        got = np.stack([network(x[None])[0] for x in samples])
    with torch.inference_mode():
        want = net(torch.from_numpy(samples)).numpy()
    assert 10 * np.log10(np.square(want).sum() / np.square(want - got).sum()) > LEAST_DB[cell]


def test_a_weight_used_twice_side_by_side_is_no_recurrence() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(self.fc(x)) * torch.sigmoid(self.fc(y))

    example = (torch.zeros(1, WIDTH), torch.zeros(1, WIDTH))
    graph = Graph(canonicalize(from_torch(Siamese().eval(), example)))
    assert recurrent(graph) == frozenset()


def test_layers_shared_across_other_products_are_no_recurrence() -> None:
    class Shared(nn.Module):
        """As ALBERT shares its blocks: between two uses of a weight stands another product."""

        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
            self.norm = nn.LayerNorm(WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                x = self.norm(x + self.down(torch.nn.functional.gelu(self.up(x))))
            return x

    graph = Graph(canonicalize(from_torch(Shared().eval(), torch.zeros(1, WIDTH))))
    assert recurrent(graph) == frozenset()
