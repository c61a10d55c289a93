"""Small ONNX files, each with one thing wrong, and a sound one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["BROKEN", "Broken", "sound_model"]

SHAPE = (1, 3, 8, 8)


@dataclass(frozen=True)
class Broken:
    """what is wrong; `write(folder)` gives the model's path; `says`: words its error must hold."""

    what: str
    write: Callable[[Path], Path]
    says: tuple[str, ...] = ()


def _weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "w": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "b": rng.standard_normal(8).astype(np.float32),
    }


def _save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, np.ndarray | TensorProto],
    output: Sequence[int] | None = None,
) -> Path:
    tensors = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)
        for name, value in weights.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        tensors,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("example.com", 1)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    return path


def _conv(x: str = "x", y: str = "c", w: str = "w") -> onnx.NodeProto:
    return helper.make_node("Conv", [x, w, "b"], [y], name=f"conv_{y}", pads=[1, 1, 1, 1])


def _relu(x: str = "c", y: str = "y") -> onnx.NodeProto:
    return helper.make_node("Relu", [x], [y], name=f"relu_{y}")


def sound_model(folder: Path) -> Path:
    """Convolution and relu: what the data rows run on."""
    return _save(folder / "sound.onnx", [_conv(), _relu()], _weights(), (1, 8, 8, 8))


def _operator(name: str, domain: str = "") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        node = helper.make_node(name, ["c"], ["y"], name="the_node", domain=domain)
        return _save(folder / "operator.onnx", [_conv(), node], _weights())

    return write


def _cycle(folder: Path) -> Path:
    nodes = [
        helper.make_node("Add", ["x", "b2"], ["a"], name="add_a"),
        helper.make_node("Mul", ["a", "x"], ["b2"], name="mul_b2"),
        helper.make_node("Relu", ["a"], ["y"], name="relu_y"),
    ]
    return _save(folder / "cycle.onnx", nodes, {})


def _undefined(folder: Path) -> Path:
    return _save(folder / "undefined.onnx", [_conv(), _relu("nowhere")], _weights())


def _mismatch(folder: Path) -> Path:
    weights = {**_weights(), "w": np.zeros((8, 5, 3, 3), np.float32)}
    return _save(folder / "mismatch.onnx", [_conv(), _relu()], weights)


def _unequal(folder: Path) -> Path:
    weights = {**_weights(), "k": np.zeros((1, 8, 3, 5), np.float32)}
    add = helper.make_node("Add", ["c", "k"], ["y"], name="the_add")
    return _save(folder / "unequal.onnx", [_conv(), add], weights)


def _external(
    location: str, target: Callable[[Path], Path | None], link: bool = False
) -> Callable[[Path], Path]:
    """The weights in a file of their own at `location`; `target` makes it, or does not."""

    def write(folder: Path) -> Path:
        home = folder / "model"
        home.mkdir()
        data = _weights()["w"]
        path = target(folder)
        if path is not None:
            path.write_bytes(data.tobytes())
        where = location.replace("FOLDER", str(folder))
        if link:
            (home / where).symlink_to(folder / "outside.bin")
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=data.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", where), ("offset", "0"), ("length", str(data.nbytes))):
            tensor.external_data.add(key=key, value=value)
        return _save(
            home / "external.onnx", [_conv(), _relu()], {"w": tensor, "b": _weights()["b"]}
        )

    return write


def _outside(folder: Path) -> Path:
    return folder / "outside.bin"


def _short(folder: Path) -> Path:
    path = _external("w.bin", lambda f: f / "model" / "w.bin")(folder)
    (path.parent / "w.bin").write_bytes(b"1234")
    return path


def _text(folder: Path) -> Path:
    path = folder / "text.onnx"
    path.write_text("this is no model\n")
    return path


def _truncated(folder: Path) -> Path:
    path = sound_model(folder)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def _pt2_operator(folder: Path) -> Path:
    import torch

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    path = folder / "operator.pt2"
    torch.export.save(torch.export.export(Net(), (torch.zeros(SHAPE),)), path)
    return path


def _pt2_truncated(folder: Path) -> Path:
    path = _pt2_operator(folder)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def _absent(folder: Path) -> Path:
    return folder / "absent.onnx"


BROKEN: tuple[Broken, ...] = (
    Broken("unsupported operator of ONNX", _operator("Det"), ("Det", "the_node")),
    Broken("operator nobody knows", _operator("Frobnicate"), ("Frobnicate", "the_node")),
    Broken("operator of another domain", _operator("Frobnicate", "example.com"), ("Frobnicate",)),
    Broken("cyclic graph", _cycle, ("cycl",)),
    Broken("input nobody makes", _undefined, ("nowhere",)),
    Broken("shape mismatch: convolution of 5 channels on 3", _mismatch, ("conv_c",)),
    Broken("shape mismatch: sum of 8x8 and 3x5", _unequal, ("the_add",)),
    Broken("missing external data", _external("w.bin", lambda f: None), ("w.bin",)),
    Broken("external data too short", _short, ("w.bin",)),
    Broken("external data in ..", _external("../outside.bin", _outside), ("outside.bin",)),
    Broken("external data by absolute path", _external("FOLDER/outside.bin", _outside), ("outside.bin",)),
    Broken("external data by symbolic link", _external("w.bin", _outside, link=True), ("w.bin",)),
    Broken("no ONNX file at all", _text, ("text.onnx",)),
    Broken("truncated ONNX file", _truncated, ("sound.onnx",)),
    Broken("unsupported operator of PyTorch", _pt2_operator, ("bessel_j0",)),
    Broken("truncated .pt2 file", _pt2_truncated, ("operator.pt2",)),
    Broken("no such file", _absent, ("absent.onnx",)),
)  # fmt: skip
