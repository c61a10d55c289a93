"""Import of trained models: PyTorch and ONNX, both to `Model`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tvmcomp.errors import ModelError

if TYPE_CHECKING:
    import onnx
    import torch

    from tvmcomp.model import Model

__all__ = ["from_onnx", "from_torch", "load_model"]


def from_torch(
    net_or_exported: torch.nn.Module | torch.export.ExportedProgram,
    example_inputs: tuple[torch.Tensor, ...] | torch.Tensor | None = None,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Model:
    """Import a PyTorch module or ExportedProgram; see `frontend/torch.py`."""
    from tvmcomp.frontend import torch as frontend

    return frontend.from_torch(net_or_exported, example_inputs, input_shapes=input_shapes)


def from_onnx(
    path_or_proto: str | Path | onnx.ModelProto,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Model:
    """Import an ONNX file or an in-memory ModelProto; see `frontend/onnx.py`."""
    from tvmcomp.frontend import onnx as frontend

    return frontend.from_onnx(path_or_proto, input_shapes=input_shapes)


def load_model(
    path: str | Path, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Model:
    """Import a file by its suffix: `.onnx`, or `.pt2` (a saved ExportedProgram)."""
    path = Path(path)
    if path.suffix == ".onnx":
        return from_onnx(path, input_shapes=input_shapes)
    if path.suffix == ".pt2":
        from tvmcomp.frontend.torch import load_pt2

        return load_pt2(path, input_shapes)
    raise ModelError(f"{path} is neither .onnx nor .pt2; export the model to one of them")
