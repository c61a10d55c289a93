"""Converters of our own for ONNX operators that TVM's importer lacks, gets wrong or turns into opaque code."""

from __future__ import annotations

from tvmcomp.frontend.onnx_ops.elementwise import ELEMENTWISE
from tvmcomp.frontend.onnx_ops.index import INDEX
from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode
from tvmcomp.frontend.onnx_ops.quantization import QUANTIZATION
from tvmcomp.frontend.onnx_ops.shape import SHAPE

__all__ = ["CONVERTERS", "OnnxNode"]

CONVERTERS: dict[str, Converter] = {
    **ELEMENTWISE,
    **INDEX,
    **QUANTIZATION,
    **SHAPE,
}
