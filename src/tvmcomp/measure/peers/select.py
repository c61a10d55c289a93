"""Which contenders a peer's name stands for, given the source model: one per precision it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tvmcomp.errors import DataError, UsageError
from tvmcomp.measure.contender import Contender, Step
from tvmcomp.measure.exchange import save_arrays
from tvmcomp.measure.inputs import GENERATED, sample_inputs
from tvmcomp.model import Signature

__all__ = ["PEERS", "original_contender", "peer_contenders"]

_ROOM = "tvmcomp.measure.peers"
_GENERATED_SAMPLES = 8


@dataclass(frozen=True)
class _Source:
    """The model the peers run, and what is derived from it: paths every contender agrees on."""

    path: Path
    shapes: Mapping[str, list[int]]
    calibration: Path
    calibrated_on: str
    scratch: Path

    @property
    def onnx(self) -> Path:
        """The ONNX file: the source itself, or what `exported` writes."""
        return self.path if self.path.suffix == ".onnx" else self.scratch / "exported.onnx"

    @property
    def exported(self) -> tuple[Step, ...]:
        """The step that makes `onnx`, if it has to be made."""
        if self.path.suffix == ".onnx":
            return ()
        options = {"source": str(self.path), "target": str(self.onnx)}
        return (Step(f"{_ROOM}.export:to_onnx", options),)

    @property
    def qdq(self) -> Path:
        """The int8 ONNX file `quantized` writes."""
        return self.scratch / "qdq.onnx"

    @property
    def quantized(self) -> tuple[Step, ...]:
        """The steps that make `qdq`."""
        options = {
            "source": str(self.onnx),
            "target": str(self.qdq),
            "calibration": str(self.calibration),
            "shapes": dict(self.shapes),
        }
        return (*self.exported, Step(f"{_ROOM}.onnxruntime:quantize", options))


def peer_contenders(
    names: Sequence[str],
    *,
    source: Path,
    signature: Signature,
    calibration: Mapping[str, np.ndarray] | None,
    scratch: Path,
) -> tuple[Contender, ...]:
    """Contenders of the peers called `names`, for the model in `source` (.onnx or .pt2).

    `calibration` (axis 0 counts samples) is what the peers quantize with; without it they get
    generated samples, which is enough for their speed and says nothing of their accuracy. `scratch`
    holds derived models and must outlive the bench.
    """
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise UsageError(f"unknown peer {', '.join(unknown)}; known are {', '.join(PEERS)}")
    if source.suffix not in (".onnx", ".pt2") or not source.is_file():
        raise UsageError(f"{source} is not an .onnx or .pt2 file; pass the model the peers run")
    path = scratch / "calibration.npz"
    given = calibration is not None
    samples = _samples(calibration, signature) if calibration is not None else _made(signature)
    save_arrays(path, samples)
    shapes = {name: list(of.shape) for name, of in signature.inputs.items()}
    about = "the calibration data given" if given else f"{_GENERATED_SAMPLES} samples, {GENERATED}"
    model = _Source(source.resolve(), shapes, path, about, scratch)
    return tuple(contender for name in dict.fromkeys(names) for contender in PEERS[name](model))


def original_contender(source: Path, signature: Signature) -> Contender | None:
    """The model file as it is in the framework it is written for; None for a file of another kind."""
    shapes = {name: list(of.shape) for name, of in signature.inputs.items()}
    path = str(source.resolve())
    if source.suffix == ".onnx":
        options = {"path": path, "shapes": shapes, "about": {}}
        return Contender("onnxruntime", "as given", f"{_ROOM}.onnxruntime:open_session", options)
    if source.suffix == ".pt2":
        return Contender("torch", "as given", f"{_ROOM}.torch:open_eager", {"path": path})
    return None


def _made(signature: Signature) -> dict[str, np.ndarray]:
    sets = [sample_inputs(signature, seed=100 + i) for i in range(_GENERATED_SAMPLES)]
    stacked = {name: np.stack([arrays[name] for arrays in sets]) for name in signature.inputs}
    return _samples(stacked, signature)


def _samples(given: Mapping[str, np.ndarray], signature: Signature) -> dict[str, np.ndarray]:
    """`given` as [samples, ...]; a single sample without that axis gets it."""
    if set(given) != set(signature.inputs):
        raise DataError(
            f"calibration data holds {list(given)}, the network takes {list(signature.inputs)}; "
            "name the arrays after the inputs"
        )
    found = {}
    for name, of in signature.inputs.items():
        row = of.shape[1:]
        array = given[name]
        if row and array.shape[-len(row) :] != row:
            raise DataError(
                f"calibration data {name!r} has shape {array.shape}, one sample has {row}; "
                "axis 0 must count samples"
            )
        found[name] = array.reshape(-1, *row)
        if len(found[name]) < (of.shape or (1,))[0]:
            raise DataError(
                f"calibration data {name!r} holds {len(found[name])} samples, fewer than the "
                f"network's batch of {of.shape[0]}; give at least one batch"
            )
    return found


def _onnxruntime(model: _Source) -> tuple[Contender, ...]:
    factory = f"{_ROOM}.onnxruntime:open_session"
    options = {"path": str(model.onnx), "shapes": dict(model.shapes), "about": {}}
    about = {"quantizer": "quantize_static, per channel, QDQ", "calibrated_on": model.calibrated_on}
    dynamic = model.scratch / "dynamic.onnx"
    dynamically = Step(
        f"{_ROOM}.onnxruntime:quantize_dynamic",
        {"source": str(model.onnx), "target": str(dynamic)},
    )
    return (
        Contender("onnxruntime", "float32", factory, options, model.exported),
        Contender(
            "onnxruntime",
            "int8",
            factory,
            {**options, "path": str(model.qdq), "about": about},
            model.quantized,
        ),
        Contender(
            "onnxruntime",
            "int8 dynamic",
            factory,
            {
                **options,
                "path": str(dynamic),
                "about": {"quantizer": "quantize_dynamic, per channel"},
            },
            (*model.exported, dynamically),
        ),
    )


def _openvino(model: _Source) -> tuple[Contender, ...]:
    factory = f"{_ROOM}.openvino:open_model"
    options = {"path": str(model.onnx), "shapes": dict(model.shapes), "about": {}}
    own = model.scratch / "nncf.xml"
    quantize = Step(
        f"{_ROOM}.openvino:quantize",
        {
            "source": str(model.onnx),
            "target": str(own),
            "calibration": str(model.calibration),
            "shapes": dict(model.shapes),
        },
    )
    calibrated = {"calibrated_on": model.calibrated_on}
    return (
        Contender("openvino", "float32", factory, {**options, "precision": "f32"}, model.exported),
        Contender("openvino", "bf16", factory, {**options, "precision": "bf16"}, model.exported),
        # Two ways to its int8; the bench keeps the faster. The precision hint stays the library's own.
        Contender(
            "openvino",
            "int8",
            factory,
            {**options, "path": str(own), "about": {"quantizer": "nncf", **calibrated}},
            (*model.exported, quantize),
        ),
        Contender(
            "openvino",
            "int8",
            factory,
            {
                **options,
                "path": str(model.qdq),
                "about": {"quantizer": "ONNX Runtime's QDQ file", **calibrated},
            },
            model.quantized,
        ),
    )


def _torch(model: _Source) -> tuple[Contender, ...]:
    options = {"path": str(model.path)}
    room = f"{_ROOM}.torch"
    compiled = {**options, "cache": str(model.scratch / "inductor"), "backend": "inductor"}
    return (
        Contender("torch", "float32", f"{room}:open_eager", options),
        Contender("torch", "bf16", f"{room}:open_autocast", options),
        Contender("torch.compile", "float32", f"{room}:open_compiled", compiled),
        Contender(
            "torch.compile", "bf16", f"{room}:open_compiled", {**compiled, "precision": "bf16"}
        ),
    )


PEERS: Mapping[str, Callable[[_Source], tuple[Contender, ...]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}
