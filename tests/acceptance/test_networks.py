"""The table's kinds of networks in small, imported, compiled and held against their framework."""

from __future__ import annotations

import numpy as np
import pytest
from acceptance.context import Context, Source
from acceptance.nets import TINY, Net
from acceptance.zoo.data import Sounds, Tokens

from acceptance import float_match, int8_exact

NETS = {net.name: net for net in TINY}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("networks")
    return Context(TINY, folder, calibration_samples=4, evaluation_samples=3)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("vit_s", "onnx"),
        ("swin_t", "torch"),
        ("bert_base", "torch"),
        ("decoder", "onnx"),
        ("lstm_tagger", "torch"),
        ("unet", "onnx"),
    ],
)
def test_float32_equals_the_framework(context: Context, name: str, source: Source) -> None:
    checks = list(float_match._one(context, NETS[name], source))
    assert [check.ok for check in checks if check.ok is not None] == [True]


@pytest.mark.parametrize("name", ["audio", "unet"])
def test_one_dimensional_and_transposed_convolutions_run_on_integers(
    context: Context, name: str
) -> None:
    from tvmcomp.graph.layers import FloatConv, IntConv, Opaque

    net = NETS[name]
    checks = list(int8_exact._one(context, net, "onnx"))
    assert [check.ok for check in checks] == [True] * 4
    layers = context.compiled(net, "onnx", "int8").graph.layers
    assert sum(isinstance(layer, IntConv) for layer in layers) >= 4
    assert not any(isinstance(layer, FloatConv | Opaque) for layer in layers)


@pytest.mark.parametrize(
    "net", [NETS["vit_s"], NETS["convnext_t"], NETS["bert_base"]], ids=lambda net: net.name
)
def test_no_weight_is_degenerate(net: Net) -> None:
    for name, parameter in net.build().named_parameters():
        values = parameter.detach().numpy()
        assert np.abs(values).max() > 1e-2, name
        assert values.size == 1 or values.std() > 1e-3, name


def test_samples_differ_by_seed_and_repeat() -> None:
    for data in (Tokens(16, 100), Sounds(500)):
        first, again, other = data.make(3, 0), data.make(3, 0), data.make(3, 1)
        for name, array in first.items():
            assert np.array_equal(array, again[name])
            assert not np.array_equal(array, other[name])
    tokens = Tokens(16, 100).make(4, 0)
    assert all(array.dtype == np.int64 for array in tokens.values())
    assert 0 < tokens["attention_mask"].mean() < 1
    assert tokens["input_ids"].max() < 100
