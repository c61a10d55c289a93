"""timm, which imports torchvision, whose compiled operators do not load beside a CPU build of torch."""

from __future__ import annotations

import importlib

import torch

__all__ = ["timm"]

# torchvision gives these two a shape function on import, and fails where its library did not register
# them. No network here calls either.
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
try:
    import torchvision  # noqa: F401
except RuntimeError:
    for _name in ("nms", "qnms"):
        _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

timm = importlib.import_module("timm")
