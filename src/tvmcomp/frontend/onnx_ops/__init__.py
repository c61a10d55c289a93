"""Converters of our own for ONNX operators that TVM's importer lacks, gets wrong or turns into opaque code."""

from __future__ import annotations

from tvmcomp.frontend.onnx_ops.attention import ATTENTION
from tvmcomp.frontend.onnx_ops.elementwise import ELEMENTWISE
from tvmcomp.frontend.onnx_ops.index import INDEX
from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode
from tvmcomp.frontend.onnx_ops.normalize import NORMALIZE
from tvmcomp.frontend.onnx_ops.quantization import QUANTIZATION
from tvmcomp.frontend.onnx_ops.recurrent import RECURRENT
from tvmcomp.frontend.onnx_ops.resize import RESIZE
from tvmcomp.frontend.onnx_ops.scan import SCAN
from tvmcomp.frontend.onnx_ops.select import SELECT
from tvmcomp.frontend.onnx_ops.shape import SHAPE
from tvmcomp.frontend.onnx_ops.spectral import SPECTRAL
from tvmcomp.frontend.onnx_ops.window import WINDOW

__all__ = ["CONVERTERS", "DEFINED", "OnnxNode"]

CONVERTERS: dict[str, Converter] = {
    **ATTENTION,
    **ELEMENTWISE,
    **INDEX,
    **QUANTIZATION,
    **NORMALIZE,
    **RECURRENT,
    **RESIZE,
    **SCAN,
    **SELECT,
    **SHAPE,
    **SPECTRAL,
    **WINDOW,
}

# Converted by TVM's importer for some of their forms only, or wrongly; the standard's definition serves better.
DEFINED: frozenset[str] = frozenset(
    {
        "CastLike",
        "MeanVarianceNormalization",
    }
)
