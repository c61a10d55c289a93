"""The networks of the table, full size and tiny, and their files as a user's own exports make them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from acceptance.host import ROOT
from acceptance.photos import STATISTICS_SEED, photos

if TYPE_CHECKING:
    import torch

__all__ = ["FULL", "TINY", "Files", "Net", "export"]

_NETWORKS = ROOT / "tests" / "networks.py"
_STATISTICS = 16  # photographs


@dataclass(frozen=True)
class Net:
    """One network at one image size; `options` are those of its function in tests/networks.py."""

    name: str
    size: int = 224
    options: tuple[tuple[str, Any], ...] = ()

    def build(self) -> torch.nn.Module:
        """With seeded weights, ready for inference; the same object every time."""
        return _built(self)


@dataclass(frozen=True)
class Files:
    """One network as `torch.export.save` and as `torch.onnx.export` write it."""

    torch: Path
    onnx: Path


FULL = tuple(map(Net, ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0")))
TINY = (
    Net("resnet18", 32, (("width", 16), ("depths", (1, 1)), ("classes", 10))),
    Net("resnet50", 32, (("width", 16), ("depths", (1, 1)), ("classes", 10))),
    Net("mobilenet_v2", 32, (("width", 0.25), ("stages", 2), ("classes", 10))),
    Net("efficientnet_b0", 32, (("width", 0.25), ("stages", 2), ("classes", 10))),
)


@cache
def _built(net: Net) -> torch.nn.Module:
    """Statistics of batch norms come from photographs, as training would leave them.

    With those of noise EfficientNet-B0 amplifies photographs a hundredfold, differently each, and a
    quantizer's SQNR on it says little.
    """
    import torch

    make: Callable[..., torch.nn.Module] = getattr(_networks(), net.name)
    module = make(**dict(net.options)).eval()
    norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        module(torch.from_numpy(photos(_STATISTICS, net.size, STATISTICS_SEED)))
    for norm in norms:
        norm.eval()
        norm.running_var.clamp_(min=1e-3)
    return module


@cache
def _networks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("acceptance_networks", _NETWORKS)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(_NETWORKS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def export(net: Net, folder: Path) -> Files:
    """The files of `net` under `folder`, made anew only when the network or PyTorch changed."""
    import torch

    about = repr((net, torch.__version__)).encode()
    # What decides the weights: the network's code, the photographs and how they are used here.
    for code in (_NETWORKS, Path(__file__), Path(__file__).with_name("photos.py")):
        about += code.read_bytes()
    home = folder / f"{net.name}-{net.size}-{hashlib.sha256(about).hexdigest()[:12]}"
    files = Files(home / f"{net.name}.pt2", home / f"{net.name}.onnx")
    if home.is_dir():
        return files
    folder.mkdir(parents=True, exist_ok=True)
    # A whole folder appears at once: the .onnx file names the data file beside it.
    scratch = Path(tempfile.mkdtemp(dir=folder))
    try:
        module, x = net.build(), torch.zeros(1, 3, net.size, net.size)
        torch.export.save(torch.export.export(module, (x,)), scratch / files.torch.name)
        torch.onnx.export(
            module,
            (x,),
            scratch / files.onnx.name,
            input_names=["x"],
            output_names=["output"],
            dynamo=True,
            verbose=False,
        )
        os.rename(scratch, home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return files
