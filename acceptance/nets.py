"""The networks of the table, full size and tiny, and their files as a user's own exports make them."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from acceptance.host import ROOT
from acceptance.photos import STATISTICS_SEED
from acceptance.zoo.data import Photos, Sounds, Tokens

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["FULL", "TINY", "Files", "Net", "export"]

_NETWORKS = ROOT / "tests" / "networks.py"
_STATISTICS = 16  # samples of real data that batch norms settle on


class Data(Protocol):
    """Where a network's inputs come from."""

    def make(self, count: int, seed: int) -> dict[str, np.ndarray]:
        """Input name -> `count` samples along the first axis."""


class Maker(Protocol):
    """Where a network's code comes from."""

    def __call__(self, options: Mapping[str, Any]) -> torch.nn.Module:
        """The network with seeded weights."""


@dataclass(frozen=True)
class Classic:
    """A function of tests/networks.py."""

    function: str

    def __call__(self, options: Mapping[str, Any]) -> torch.nn.Module:
        """Seeded by the function itself."""
        return getattr(_networks(), self.function)(**options).eval()


@dataclass(frozen=True)
class Timm:
    """A network of timm."""

    model: str

    def __call__(self, options: Mapping[str, Any]) -> torch.nn.Module:
        """Without timm's trained weights, which would have to be fetched."""
        from acceptance.timm_models import timm
        from acceptance.zoo.weights import seeded

        return seeded(timm.create_model(self.model, pretrained=False, **options))


@dataclass(frozen=True)
class Own:
    """A class of acceptance/zoo: "module.Class"."""

    path: str

    def __call__(self, options: Mapping[str, Any]) -> torch.nn.Module:
        """Drawn by acceptance/zoo/weights.py."""
        from acceptance.zoo.weights import seeded

        module, _, name = self.path.partition(".")
        return seeded(getattr(importlib.import_module(f"acceptance.zoo.{module}"), name)(**options))


@dataclass(frozen=True)
class Net:
    """One network for inputs from `data`; `options` are those of its maker."""

    name: str
    make: Maker
    data: Data
    options: tuple[tuple[str, Any], ...] = ()

    def build(self) -> torch.nn.Module:
        """With seeded weights, ready for inference; the same object every time."""
        return _built(self)

    def inputs(self, count: int, seed: int) -> dict[str, np.ndarray]:
        """Input name -> `count` samples along the first axis."""
        return self.data.make(count, seed)


@dataclass(frozen=True)
class Files:
    """One network as `torch.export.save` and as `torch.onnx.export` write it."""

    torch: Path
    onnx: Path


def _net(name: str, make: Maker, data: Data | None = None, **options: Any) -> Net:
    return Net(name, make, data or Photos(), tuple(options.items()))


_CLASSIC = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0")
_TIMM = (
    ("vit_s", "vit_small_patch16_224"),
    ("deit_t", "deit_tiny_patch16_224"),
    ("swin_t", "swin_tiny_patch4_window7_224"),
    ("convnext_t", "convnext_tiny"),
    ("mobilenet_v3_l", "mobilenetv3_large_100"),
    ("densenet121", "densenet121"),
    ("regnety_400mf", "regnety_004"),
)

FULL = (
    *(_net(name, Classic(name)) for name in _CLASSIC),
    *(_net(name, Timm(model)) for name, model in _TIMM),
    _net("bert_base", Own("transformer.Bert"), Tokens(128)),
    _net("decoder", Own("transformer.Decoder"), Tokens(128, 8192, masked=False)),
    _net("yolo", Own("dense.Detector"), Photos(320)),
    _net("unet", Own("dense.UNet"), Photos(160)),
    _net("unet_bilinear", Own("dense.UNet"), Photos(160), transposed=False),
    _net("lstm_tagger", Own("sequence.Tagger"), Tokens(48, 10000, masked=False)),
    _net("audio", Own("sequence.AudioNet"), Sounds(16000)),
)

_SMALL = Photos(32)
TINY = (
    _net("resnet18", Classic("resnet18"), _SMALL, width=16, depths=(1, 1), classes=10),
    _net("resnet50", Classic("resnet50"), _SMALL, width=16, depths=(1, 1), classes=10),
    _net("mobilenet_v2", Classic("mobilenet_v2"), _SMALL, width=0.25, stages=2, classes=10),
    _net("efficientnet_b0", Classic("efficientnet_b0"), _SMALL, width=0.25, stages=2, classes=10),
    *(
        _net(
            name,
            Timm(model),
            _SMALL,
            img_size=32,
            patch_size=8,
            embed_dim=32,
            depth=2,
            num_heads=2,
            num_classes=10,
        )
        for name, model in _TIMM[:2]
    ),
    _net(
        "swin_t",
        Timm("swin_tiny_patch4_window7_224"),
        _SMALL,
        img_size=32,
        window_size=4,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(1, 2),
        num_classes=10,
    ),
    _net(
        "convnext_t",
        Timm("convnext_tiny"),
        _SMALL,
        depths=(1, 1, 1, 1),
        dims=(8, 16, 16, 32),
        num_classes=10,
    ),
    _net("mobilenet_v3_l", Timm("mobilenetv3_small_050"), _SMALL, num_classes=10),
    _net(
        "densenet121",
        Timm("densenet121"),
        _SMALL,
        growth_rate=8,
        block_config=(2, 2),
        num_classes=10,
    ),
    _net("regnety_400mf", Timm("regnety_002"), _SMALL, num_classes=10),
    _net(
        "bert_base",
        Own("transformer.Bert"),
        Tokens(16, 100),
        vocabulary=100,
        positions=32,
        width=32,
        layers=2,
        heads=2,
    ),
    _net(
        "decoder",
        Own("transformer.Decoder"),
        Tokens(16, 100, masked=False),
        vocabulary=100,
        positions=32,
        width=32,
        heads=2,
        hidden=48,
    ),
    _net("yolo", Own("dense.Detector"), Photos(64), width=4, depths=(1, 1, 1, 1), classes=3),
    _net("unet", Own("dense.UNet"), _SMALL, width=8, depth=2, classes=5),
    _net("unet_bilinear", Own("dense.UNet"), _SMALL, width=8, depth=2, classes=5, transposed=False),
    _net(
        "lstm_tagger",
        Own("sequence.Tagger"),
        Tokens(8, 100, masked=False),
        vocabulary=100,
        width=16,
        hidden=16,
        tags=5,
    ),
    _net("audio", Own("sequence.AudioNet"), Sounds(2000), width=8, depths=(1, 2), classes=10),
)


@cache
def _built(net: Net) -> torch.nn.Module:
    """Statistics of batch norms come from real data, as training would leave them.

    With those of noise EfficientNet-B0 amplifies photographs a hundredfold, differently each, and a
    quantizer's SQNR on it says little.
    """
    import torch

    from acceptance.zoo.weights import settled

    samples = net.inputs(_STATISTICS, STATISTICS_SEED)
    tensors = {name: torch.from_numpy(array) for name, array in samples.items()}
    # Weights first made within inference mode could not be exported later.
    with torch.inference_mode(False):
        return settled(net.make(dict(net.options)), tensors)


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
    here = Path(__file__)
    for code in (
        _NETWORKS,
        here,
        here.with_name("photos.py"),
        *sorted(here.parent.glob("zoo/*.py")),
    ):
        about += code.read_bytes()
    home = folder / f"{net.name}-{hashlib.sha256(about).hexdigest()[:12]}"
    files = Files(home / f"{net.name}.pt2", home / f"{net.name}.onnx")
    if home.is_dir():
        return files
    folder.mkdir(parents=True, exist_ok=True)
    # A whole folder appears at once: the .onnx file names the data file beside it.
    scratch = Path(tempfile.mkdtemp(dir=folder))
    try:
        module = net.build()
        samples = net.inputs(1, STATISTICS_SEED)
        example = tuple(torch.from_numpy(array) for array in samples.values())
        torch.export.save(torch.export.export(module, example), scratch / files.torch.name)
        torch.onnx.export(
            module,
            example,
            scratch / files.onnx.name,
            input_names=list(samples),
            dynamo=True,
            verbose=False,
        )
        os.rename(scratch, home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return files
