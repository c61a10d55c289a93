"""Small versions of the acceptance networks, from PyTorch and from both ONNX exporters."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from tvm import relax

import networks
from toys import run
from tvmcomp.frontend import from_onnx, from_torch
from tvmcomp.frontend.block import op_name, shape_of
from tvmcomp.graph.canonical import canonicalize
from tvmcomp.graph.cost import layer_costs
from tvmcomp.model import Model

SIZE = 32
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: networks.resnet18(8, (1, 1), 10),
    "resnet50": lambda: networks.resnet50(8, (1, 1), 10),
    "mobilenet_v2": lambda: networks.mobilenet_v2(0.25, 2, 10),
    "efficientnet_b0": lambda: networks.efficientnet_b0(0.25, 2, 10),
}
SOURCES = ("torch", "onnx", "onnx-legacy")

# What these networks may consist of; a reshape stands after the global pool.
OPERATORS = {
    *("add", "clip", "matmul", "mean", "multiply", "nn.conv2d", "nn.max_pool2d", "nn.relu"),
    *("nn.silu", "permute_dims", "reshape", "sigmoid"),
}


def export(net: nn.Module, x: torch.Tensor, source: str) -> Model:
    """The network through one importer."""
    if source == "torch":
        return from_torch(net, x)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if source == "onnx":
            torch.onnx.export(net, (x,), file, dynamo=True, external_data=False, verbose=False)
        else:
            torch.onnx.export(net, (x,), file, dynamo=False, opset_version=17)
    return from_onnx(onnx.load_model_from_string(file.getvalue()))


@cache
def reference(name: str) -> tuple[nn.Module, torch.Tensor, np.ndarray]:
    net = NETWORKS[name]()
    x = networks.example_input(SIZE)
    with torch.no_grad():
        return net, x, net(x).numpy()


@cache
def imported(name: str, source: str) -> tuple[Model, Model]:
    net, x, _ = reference(name)
    model = export(net, x, source)
    return model, canonicalize(model)


def bindings(model: Model) -> list[relax.Binding]:
    (block,) = model.module["main"].body.blocks
    return list(block.bindings)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_framework(name, source):
    _, x, expected = reference(name)
    model, canonical = imported(name, source)
    assert canonical.signature == model.signature
    inputs = dict.fromkeys(canonical.signature.inputs, x.numpy())
    (actual,) = run(canonical)(inputs).values()
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", NETWORKS)
def test_form(name, source):
    model, canonical = imported(name, source)
    relax.analysis.well_formed(canonical.module)
    main = canonical.module["main"]
    names = [str(var.name) for var in main.params]
    assert names == [*canonical.signature.inputs, *canonical.params]
    assert [canonical.params[name].shape for name in canonical.params] == [
        shape_of(var) for var in main.params[1:]
    ]
    calls = [binding.value for binding in bindings(canonical)]
    ops = [op_name(call) for call in calls]
    assert set(ops) <= OPERATORS
    assert ops.count("permute_dims") == ops.count("reshape") == 1
    assert ops[0] == "permute_dims"
    for call, op in zip(calls, ops, strict=True):
        if op == "nn.conv2d":
            assert (call.attrs.data_layout, call.attrs.kernel_layout) == ("NHWC", "OHWI")
        if op == "mean":
            assert (list(call.attrs.axis), bool(call.attrs.keepdims)) == ([1, 2], True)
        biases = call.args[1:] if op == "add" else []
        assert all(len(shape_of(bias)) == 1 for bias in biases if str(bias.name) in names)
    bound = [str(binding.var.name) for binding in bindings(canonical)]
    assert len({*bound, *names}) == len(bound) + len(names)
    macs = [sum(cost.macs for cost in layer_costs(m)) for m in (model, canonical)]
    assert macs[0] == macs[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_form_from_every_source(name):
    # Exporters differ in which branch of a block they write first.
    forms = []
    for source in SOURCES:
        values = [binding.value for binding in bindings(imported(name, source)[1])]
        forms.append(sorted((op_name(value), shape_of(value)) for value in values))
    assert forms[0] == forms[1] == forms[2]


def test_layers_keep_the_names_the_user_knows():
    names = [str(b.var.name) for b in bindings(imported("mobilenet_v2", "torch")[1])]
    assert {"features.1.conv.0.0", "features.1.conv.1", "classifier.1"} <= set(names)
    assert "features.1.conv.1.weight" in imported("mobilenet_v2", "torch")[1].params


def test_is_pure():
    model, _ = imported("resnet18", "torch")
    text, params = model.module.script(), {k: v.copy() for k, v in model.params.items()}
    canonicalize(model)
    assert model.module.script() == text
    assert list(model.params) == list(params)
    assert all(np.array_equal(model.params[key], params[key]) for key in params)


def test_is_idempotent():
    _, canonical = imported("efficientnet_b0", "torch")
    again = canonicalize(canonical)
    assert again.module.script() == canonical.module.script()
    for name, array in canonical.params.items():
        np.testing.assert_array_equal(again.params[name], array)


class Forward(nn.Module):
    def __init__(self, forward: Callable[..., torch.Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x, *self.layers)


def conv(**options: object) -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, padding=1, **options)


def norm(channels: int = 8) -> nn.Module:
    layer = nn.BatchNorm2d(channels)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.normal_(layer.bias)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2.0)
    return layer


# Each stands behind a convolution: what it may turn into, in order, up to the final permutation.
LAYERS: dict[str, tuple[nn.Module, str]] = {
    "hard swish": (nn.Hardswish(), "add clip divide multiply"),
    "hard sigmoid": (nn.Hardsigmoid(), "add clip divide"),
    "relu6": (nn.ReLU6(), "clip"),
    "prelu": (nn.PReLU(8), "nn.prelu"),
    "biased conv and norm": (nn.Sequential(conv(), norm(), nn.ReLU()), "nn.conv2d add nn.relu"),
    "groups": (conv(groups=4, dilation=2, stride=2), "nn.conv2d add"),
    "norm first": (nn.Sequential(nn.ReLU(), norm(), conv()), "nn.relu multiply add nn.conv2d add"),
    "same padding": (nn.Conv2d(8, 4, 4, padding="same"), "nn.conv2d add"),
    "padding of its own": (
        nn.Sequential(nn.ZeroPad2d((0, 1, 2, 3)), conv(stride=2)),
        "nn.conv2d add",
    ),
    "reflected padding": (conv(padding_mode="reflect"), "nn.pad nn.conv2d add"),
    "nearest": (nn.Upsample(scale_factor=2), "image.resize2d"),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), "image.resize2d"),
    "average, ceil": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), "nn.avg_pool2d"),
    "average, no pad": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), "nn.avg_pool2d"),
    "global maximum": (nn.AdaptiveMaxPool2d(1), "nn.max_pool2d"),
    "l2 norm": (Forward(lambda x: x / x.square().sum(1, keepdim=True).sqrt()), ""),
    "attention gate": (
        Forward(lambda x: torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)),
        "mean max concat",
    ),
    "linear squeeze and excite": (
        Forward(
            lambda x, a, b: x * torch.sigmoid(b(torch.relu(a(x.mean((2, 3)))))).view(1, 8, 1, 1),
            nn.Linear(8, 4),
            nn.Linear(4, 8),
        ),
        "mean reshape matmul add nn.relu matmul add sigmoid reshape multiply",
    ),
    "convnext block": (
        Forward(
            lambda x, c, n, d: x + d(n(c(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2),
            conv(groups=8),
            nn.LayerNorm(8),
            nn.Linear(8, 8),
        ),
        "nn.conv2d add nn.layer_norm matmul add add",
    ),
    "shared conv": (Forward(lambda x, c, n: n(c(c(x))), conv(), norm()), ""),
    "conv read twice": (Forward(lambda x, c, n: n(y := c(x)) + y, conv(), norm()), ""),
    "channel halves": (Forward(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)), ""),
    "pixel shuffle": (nn.PixelShuffle(2), ""),
    "transposed": (nn.ConvTranspose2d(8, 4, 2, 2), ""),
    "dense head": (
        nn.Sequential(nn.Flatten(), nn.Linear(512, 6), nn.BatchNorm1d(6), nn.Dropout()),
        "",
    ),
}


@pytest.mark.parametrize("source", ["torch", "onnx-legacy"])
@pytest.mark.parametrize("case", LAYERS)
def test_layers(case, source):
    layer, expected_ops = LAYERS[case]
    torch.manual_seed(0)
    net = nn.Sequential(conv(), layer).eval()
    x = torch.randn(1, 8, 8, 8)
    with torch.no_grad():
        expected = net(x).numpy()
    canonical = canonicalize(export(net, x, source))
    (actual,) = run(canonical)(dict.fromkeys(canonical.signature.inputs, x.numpy())).values()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
    ops = [op_name(binding.value) for binding in bindings(canonical)]
    assert ops[:3] == ["permute_dims", "nn.conv2d", "add"]
    if expected_ops:
        # The last one brings the result back to NCHW; a single pixel needs no permutation for it.
        assert ops[3:-1] == expected_ops.split()
        assert ops[-1] in ("permute_dims", "reshape")
