"""Float32: the compiled network against the framework its file comes from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from acceptance.context import SOURCES, Context, Source
from acceptance.nets import Net
from acceptance.row import Check, Row, at_most, figure, tried

__all__ = ["ROW"]

_LIMIT = 1e-4


def _inputs(context: Context, net: Net) -> np.ndarray:
    """Photographs, and a generated field with a photograph's spectrum.

    White noise would not do: EfficientNet-B0 amplifies it a thousandfold, and rounding with it (PyTorch
    itself is then 3e-5 from float64, on photographs 3e-6).
    """
    from tvmcomp.measure import sample_inputs
    from tvmcomp.model import Signature, TensorType

    signature = Signature({"x": TensorType((1, 3, net.size, net.size), "float32")}, {})
    field = sample_inputs(signature, seed=3)["x"]
    return np.concatenate([context.evaluation(net)[:3], field[None]])


def _torch(context: Context, net: Net, inputs: np.ndarray) -> list[np.ndarray]:
    import torch

    module = net.build()
    with torch.inference_mode():
        return [module(torch.from_numpy(x)).numpy() for x in inputs]


def _onnxruntime(context: Context, net: Net, inputs: np.ndarray) -> list[np.ndarray]:
    import onnxruntime as ort

    session = ort.InferenceSession(context.files(net).onnx, providers=["CPUExecutionProvider"])
    return [session.run(None, {"x": x})[0] for x in inputs]


_FRAMEWORKS = {"torch": _torch, "onnx": _onnxruntime}


def _distance(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    """The worst over the inputs of max|a-b| / max|b|."""
    return max(
        float(np.abs(a.astype(np.float64) - b).max() / np.abs(b).max())
        for a, b in zip(got, want, strict=True)
    )


def _one(context: Context, net: Net, source: Source) -> Iterator[Check]:
    import tvmcomp as tc

    compiled = context.compiled(net, source, "float32")
    inputs = _inputs(context, net)
    with tc.load(compiled.path) as network:
        got = [network(x) for x in inputs]
    want = _FRAMEWORKS[source](context, net, inputs)
    yield at_most(
        f"{net.name} from {source}: max|a-b| / max|b|",
        _distance(got, want),
        _LIMIT,
        f"{len(inputs)} inputs, largest output {max(np.abs(w).max() for w in want):.3g}",
    )
    kinds = sorted({type(layer).__name__ for layer in compiled.graph.layers})
    yield figure(f"{net.name} from {source}: kinds of layers", ", ".join(kinds))


def _run(context: Context) -> Iterator[Check]:
    for net in context.nets:
        for source in SOURCES:
            yield from tried(
                f"{net.name} from {source}", lambda n=net, s=source: _one(context, n, s)
            )


ROW = Row(
    "float", "float32: max|a-b| / max|b| <= 1e-4 against the framework, from torch and ONNX", _run
)
