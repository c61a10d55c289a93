"""What the server that judges node tests loads before it forks: imports and test data."""

from __future__ import annotations

from acceptance import onnx_case
from acceptance.onnx_cases import load_cases

__all__ = ["onnx_case"]

load_cases()
