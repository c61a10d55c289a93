"""ONNX Runtime as a peer: float32 as it comes, int8 by its own static and dynamic quantizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tvmcomp.errors import TvmcompError
from tvmcomp.measure.peers.feeds import bind, calibration_batches
from tvmcomp.target.cpu import host_cpu

__all__ = ["open_session", "quantize", "quantize_dynamic"]

# What ONNX Runtime's guide advises dynamic quantization for; its ConvInteger is slower than its float Conv.
_DYNAMIC = ("MatMul", "Gemm", "LSTM", "Attention")
_VNNI = frozenset({"avx512vnni", "avxvnni", "dotprod"})


class _Session:
    """An inference session on the CPU provider."""

    def __init__(self, session: Any, versions: Mapping[str, str], settings: Mapping[str, Any]):
        self._session = session
        self._names = [given.name for given in session.get_inputs()]
        self.versions = versions
        self.settings = settings

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        outputs: list[np.ndarray] = self._session.run(None, bind(self._names, inputs))
        return outputs


def open_session(
    *, path: str, threads: int, shapes: Mapping[str, list[int]], about: Mapping[str, Any]
) -> _Session:
    """A session on `path`, its symbolic dimensions fixed to `shapes`; `about` goes into the settings."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    fixed = _free_dimensions(path, shapes)
    for name, size in fixed.items():
        options.add_free_dimension_override_by_name(name, size)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    settings = {
        "intra_op_num_threads": threads,
        "inter_op_num_threads": 1,
        "execution_mode": "sequential",
        "graph_optimization_level": "all",
        "free_dimensions": fixed,
        "instruction_set": None,  # chosen from the processor at run time; the library does not tell
        "providers": session.get_providers(),
        **about,
    }
    return _Session(session, {"onnxruntime": ort.__version__}, settings)


def quantize(
    *, source: str, target: str, calibration: str, shapes: Mapping[str, list[int]]
) -> None:
    """Write `source` quantized by `quantize_static` to `target`: QDQ, u8 activations, s8 per channel.

    Without dot-product instructions 8 bits of both overflow its 16-bit sums, so the range is reduced
    there, as ONNX Runtime advises.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # One file: the preparation's own temporary model would look for weights beside itself.
    model = onnx.load(source)
    whole = f"{target}.whole.onnx"
    onnx.save(model, whole)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    names = [given.name for given in graph.input if given.name not in constants]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, np.ndarray]] = calibration_batches(
                Path(calibration), names, shapes
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    prepared = f"{target}.prepared.onnx"
    quant_pre_process(whole, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=not (host_cpu().features & _VNNI),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def quantize_dynamic(*, source: str, target: str) -> None:
    """Write `source` with s8 weights per channel and activations quantized at each call to `target`."""
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize_model

    model = onnx.load(source)
    if not any(node.op_type in _DYNAMIC for node in model.graph.node):
        raise TvmcompError(
            f"no {', '.join(_DYNAMIC)} in the model, and dynamic quantization gains nothing elsewhere"
        )
    # One file, as in `quantize`.
    whole = f"{target}.whole.onnx"
    onnx.save(model, whole)
    quantize_model(
        whole,
        target,
        op_types_to_quantize=list(_DYNAMIC),
        per_channel=True,
        reduce_range=not (host_cpu().features & _VNNI),
        weight_type=QuantType.QInt8,
    )


def _free_dimensions(path: str, shapes: Mapping[str, list[int]]) -> dict[str, int]:
    """Symbolic dimension -> its size in `shapes`, for inputs found there by name."""
    import onnx

    found: dict[str, int] = {}
    for given in onnx.load(path, load_external_data=False).graph.input:
        dimensions = given.type.tensor_type.shape.dim
        for dimension, size in zip(dimensions, shapes.get(given.name, ()), strict=False):
            if dimension.dim_param:
                found[dimension.dim_param] = size
    return found
