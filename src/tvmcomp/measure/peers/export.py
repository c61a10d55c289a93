"""A saved ExportedProgram as an ONNX file, for the peers that read only that."""

from __future__ import annotations

__all__ = ["to_onnx"]


def to_onnx(*, source: str, target: str) -> None:
    """Write the `.pt2` file `source` as ONNX to `target`."""
    import torch

    program = torch.onnx.export(torch.export.load(source), dynamo=True, verbose=False)
    program.save(target)
