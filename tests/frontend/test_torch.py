from __future__ import annotations

import gc
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from toys import run
from tvmcomp.errors import ModelError
from tvmcomp.frontend import from_torch, load_model
from tvmcomp.frontend.block import op_name
from tvmcomp.model import Model, TensorType


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)
        self.register_buffer("scale", torch.tensor([2.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).mean((2, 3))) * self.scale


class Forward(nn.Module):
    def __init__(self, forward: Callable[..., object]) -> None:
        super().__init__()
        self.call = forward

    def forward(self, x: Tensor) -> object:
        return self.call(x)


X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def ops(model: Model) -> list[str]:
    (block,) = model.module["main"].body.blocks
    return [op_name(binding.value) for binding in block.bindings]


def close(model: Model, net: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = net(x).numpy()
    (actual,) = run(model)(dict.fromkeys(model.signature.inputs, x.numpy())).values()
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def test_parameters_keep_their_names_and_buffers_are_parameters():
    net = Net().eval()
    model = from_torch(net, (X,))
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    # Nothing reads the counter of batches.
    del state["stem.1.num_batches_tracked"]
    assert set(model.params) == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(model.params[name], array)
    assert [str(var.name) for var in model.module["main"].params] == ["x", *model.params]
    assert dict(model.signature.inputs) == {"x": TensorType((2, 3, 6, 6), "float32")}
    assert dict(model.signature.outputs) == {"output": TensorType((2, 2), "float32")}
    close(model, net, X)


def test_parameters_are_copies():
    net = Net().eval()
    model = from_torch(net, X)
    before = model.params["head.weight"].copy()
    with torch.no_grad():
        net.head.weight.zero_()
    np.testing.assert_array_equal(model.params["head.weight"], before)


def test_provenance_follows_the_weights():
    net = Net().eval()
    first, second = from_torch(net, X), from_torch(net, X)
    assert first.provenance == second.provenance
    assert (first.provenance.source, first.provenance.framework) == ("Net", "torch")
    with torch.no_grad():
        net.head.bias.add_(1.0)
    assert from_torch(net, X).provenance.sha256 != first.provenance.sha256


def test_a_module_in_training_is_imported_for_inference_and_left_in_training():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.BatchNorm2d(4))
    net.train()
    model = from_torch(net, X)
    assert net.training
    close(model, net.eval(), X)


def test_several_outputs():
    model = from_torch(Forward(lambda x: (x.relu(), x.exp())), X)
    assert list(model.signature.outputs) == ["output_0", "output_1"]
    outputs = run(model)({"x": X.numpy()})
    np.testing.assert_allclose(outputs["output_1"], X.exp().numpy(), rtol=1e-5)


def test_several_inputs_keep_their_names_and_order():
    class Add(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return left - right

    model = from_torch(Add(), (X, torch.ones(6)))
    assert list(model.signature.inputs) == ["left", "right"]
    outputs = run(model)({"left": X.numpy(), "right": np.ones(6, np.float32)})
    np.testing.assert_allclose(outputs["output"], X.numpy() - 1, rtol=1e-6)


def test_a_tensor_written_into_the_module_is_a_parameter():
    model = from_torch(Forward(lambda x: x * torch.tensor([1.0, 2, 3, 4, 5, 6])), X)
    (array,) = model.params.values()
    np.testing.assert_array_equal(array, [1, 2, 3, 4, 5, 6])


# Operators that stay whole although PyTorch would take them apart.
WHOLE: dict[str, tuple[nn.Module, list[str]]] = {
    "prelu": (nn.PReLU(3), ["nn.prelu"]),
    "reflection": (nn.ReflectionPad2d((1, 2, 3, 0)), ["nn.pad"]),
    "replication": (nn.ReplicationPad2d((1, 2, 3, 0)), ["nn.pad"]),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), ["image.resize2d"]),
    "bilinear": (nn.Upsample((7, 4), mode="bilinear"), ["image.resize2d"]),
    "corners": (
        nn.Upsample(scale_factor=1.4, mode="bilinear", align_corners=True),
        ["image.resize2d"],
    ),
    "nearest up": (nn.Upsample((9, 20)), ["image.resize2d"]),
    "nearest down": (nn.Upsample((4, 3)), ["image.resize2d"]),
    "nearest by a factor": (nn.Upsample(scale_factor=(1.5, 2)), ["image.resize2d"]),
    "exact nearest": (nn.Upsample((9, 4), mode="nearest-exact"), ["image.resize2d"]),
    "adaptive maximum": (nn.AdaptiveMaxPool2d((3, 2)), ["nn.max_pool2d"]),
    "maximum of an axis": (Forward(lambda x: x.amax(1)), ["max"]),
    "minimum of all": (Forward(lambda x: x.amin()), ["min"]),
    "kept maximum": (Forward(lambda x: x.amax((2, 3), keepdim=True)), ["max"]),
}


@pytest.mark.parametrize("case", WHOLE)
def test_operators_stay_whole(case):
    net, expected = WHOLE[case]
    model = from_torch(net.eval(), X)
    assert [op for op in ops(model) if op != "reshape"] == expected
    close(model, net, X)


@pytest.fixture(scope="module")
def dynamic() -> torch.export.ExportedProgram:
    dims = {0: torch.export.Dim("batch", max=64), 3: torch.export.Dim("width", min=2, max=64)}
    return torch.export.export(Net().eval(), (X,), dynamic_shapes=(dims,))


def test_dynamic_dimensions(dynamic):
    with pytest.raises(ModelError, match=r"--input-shape x=1,3,6,1"):
        from_torch(dynamic)
    model = from_torch(dynamic, input_shapes={"x": (4, 3, 6, 9)})
    assert model.signature.inputs["x"].shape == (4, 3, 6, 9)
    assert "head.weight" in model.params
    close(model, dynamic.module(), torch.randn(4, 3, 6, 9))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"y": (1, 3, 6, 6)}, "no input 'y'; its inputs: x"),
        ({"x": (1, 3, 7, 6)}, "only dynamic dimensions can be chosen"),
        ({"x": (1, 3, 6)}, r"asks for \[1,3,6\]"),
        ({"x": (1, 3, 6, 0)}, "must be positive"),
        ({"x": (65, 3, 6, 6)}, "does not accept"),
    ],
)
def test_input_shapes_that_do_not_fit(dynamic, shapes, message):
    with pytest.raises(ModelError, match=message) as caught:
        from_torch(dynamic, input_shapes=shapes)
    assert "\n" not in str(caught.value)


def test_input_shapes_replace_those_of_the_examples():
    model = from_torch(Net().eval(), X, input_shapes={"x": (1, 3, 9, 5)})
    assert model.signature.inputs["x"].shape == (1, 3, 9, 5)


def test_a_saved_program(tmp_path):
    net = Net().eval()
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (X,)), path)
    model = load_model(path)
    assert model.provenance.source == str(path)
    assert model.provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "stem.1.running_var" in model.params
    close(model, net, X)


def test_a_saved_program_cut_short(tmp_path):
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Net().eval(), (X,)), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError, match="is not a saved ExportedProgram") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def nan_weight() -> nn.Module:
    net = Net().eval()
    with torch.no_grad():
        net.head.weight[0, :2] = torch.nan
    return net


REFUSED: dict[str, tuple[nn.Module, tuple[Tensor, ...] | None, str]] = {
    "no examples": (Net(), None, "needs example_inputs"),
    "unsupported operator": (
        Forward(lambda x: torch.linalg.svdvals(x)),
        (X,),
        r"operator .*svd.* of node .* is not supported; its inputs: x\[2, 3, 6, 6\]",
    ),
    "a branch on data": (
        Forward(lambda x: x.relu() if x.sum() > 0 else x),
        (X,),
        "torch.export cannot trace Forward",
    ),
    "wrong channels": (Net(), (torch.zeros(1, 5, 6, 6),), "torch.export cannot trace Net"),
    "a factor that fits no whole size": (
        nn.Upsample(scale_factor=1.4),
        (X,),
        r"scale 1\.4 of length 6 is no whole length; pass size=",
    ),
    "NaN": (nan_weight(), (X,), "head.weight holds 2 values that are NaN or infinite"),
    "no tensor": (Forward(lambda x: x), (3,), "is no tensor; wrap the module"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, capfd):
    net, examples, message = REFUSED[case]
    with pytest.raises(ModelError, match=message) as caught:
        from_torch(net, examples)
    assert "\n" not in str(caught.value)
    # The importer's builder warns when it goes away, which is when the traceback that holds it does.
    del caught
    gc.collect()
    out, err = capfd.readouterr()
    assert out == ""
    assert "BlockBuilder" not in err


def test_a_file_that_is_no_program_logs_nothing(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"PK" * 900)
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    log = logging.getLogger("torch.export")
    log.addHandler(handler)
    try:
        with pytest.raises(ModelError, match=r"net\.pt2"):
            load_model(tmp_path / "net.pt2")
    finally:
        log.removeHandler(handler)
    assert records == []
