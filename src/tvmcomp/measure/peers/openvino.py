"""OpenVINO as a peer: float32, bf16 where the processor has it, int8 from a quantized file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tvmcomp.errors import TvmcompError
from tvmcomp.measure.peers.feeds import bind, calibration_batches

__all__ = ["open_model", "quantize"]

_READ_BACK = (
    "INFERENCE_NUM_THREADS",
    "NUM_STREAMS",
    "INFERENCE_PRECISION_HINT",
    "PERFORMANCE_HINT",
    "EXECUTION_MODE_HINT",
    "ENABLE_CPU_PINNING",
)


class _Request:
    """One inference request; inputs are shared with numpy, outputs are copied out, as others do."""

    def __init__(self, compiled: Any, versions: Mapping[str, str], settings: Mapping[str, Any]):
        self._request = compiled.create_infer_request()
        self._names = [port.get_any_name() for port in compiled.inputs]
        self._outputs = list(compiled.outputs)
        self.versions = versions
        self.settings = settings

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        results = self._request.infer(bind(self._names, inputs), share_inputs=True)
        return [results[port] for port in self._outputs]


def open_model(
    *,
    path: str,
    threads: int,
    shapes: Mapping[str, list[int]],
    about: Mapping[str, Any],
    precision: str | None = None,
) -> _Request:
    """`path` compiled for one stream on the CPU; `precision` ("f32", "bf16") or the library's choice."""
    import openvino as ov

    core = ov.Core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in capabilities:
        raise TvmcompError(
            f"OpenVINO has no bf16 on this processor, only {', '.join(capabilities)}"
        )
    config: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if precision is not None:
        config["INFERENCE_PRECISION_HINT"] = precision
    compiled = core.compile_model(_static(core, path, shapes), "CPU", config)
    settings: dict[str, Any] = {name: str(compiled.get_property(name)) for name in _READ_BACK}
    settings["OPTIMIZATION_CAPABILITIES"] = list(capabilities)
    settings["instruction_set"] = None  # chosen from the processor; the library does not tell
    return _Request(compiled, {"openvino": ov.get_version()}, {**settings, **about})


def quantize(
    *, source: str, target: str, calibration: str, shapes: Mapping[str, list[int]]
) -> None:
    """Write `source` quantized by NNCF, OpenVINO's own quantizer, as IR to `target`."""
    # NNCF reports its use to its makers unless it believes it is being tested.
    os.environ["NNCF_CI"] = "1"
    import nncf
    import openvino as ov

    model = _static(ov.Core(), source, shapes)
    names = [port.get_any_name() for port in model.inputs]
    batches = list(calibration_batches(Path(calibration), names, shapes))
    quantized = nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))
    ov.save_model(quantized, target, compress_to_fp16=False)


def _static(core: Any, path: str, shapes: Mapping[str, list[int]]) -> Any:
    """The model with every dynamic shape fixed: by name, or in order where an export renamed inputs."""
    model = core.read_model(path)
    if not model.is_dynamic():
        return model
    given = {name: np.array(shape) for name, shape in shapes.items()}
    fixed = bind([port.get_any_name() for port in model.inputs], given)
    model.reshape({name: [int(size) for size in shape] for name, shape in fixed.items()})
    return model
