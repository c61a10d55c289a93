"""Float32: the compiled network against the framework its file comes from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from acceptance.context import SOURCES, Arrays, Context, Source, torch_outputs
from acceptance.nets import Net
from acceptance.row import Check, Row, at_most, figure, tried
from acceptance.zoo.data import Photos

__all__ = ["ROW"]

_LIMIT = 1e-4


def _inputs(context: Context, net: Net) -> list[Arrays]:
    """Real samples; for images also a generated field with a photograph's spectrum.

    White noise would not do: EfficientNet-B0 amplifies it a thousandfold, and rounding with it (PyTorch
    itself is then 3e-5 from float64, on photographs 3e-6).
    """
    from tvmcomp.measure import sample_inputs
    from tvmcomp.model import Signature, TensorType

    samples = context.evaluation(net)[:3]
    if not isinstance(net.data, Photos):
        return samples
    signature = Signature({"x": TensorType(samples[0]["x"].shape, "float32")}, {})
    return [*samples, sample_inputs(signature, seed=3)]


def _torch(context: Context, net: Net, inputs: list[Arrays]) -> list[list[np.ndarray]]:
    return [torch_outputs(net, arrays) for arrays in inputs]


def _onnxruntime(context: Context, net: Net, inputs: list[Arrays]) -> list[list[np.ndarray]]:
    import onnxruntime as ort

    session = ort.InferenceSession(context.files(net).onnx, providers=["CPUExecutionProvider"])
    return [session.run(None, arrays) for arrays in inputs]


_FRAMEWORKS = {"torch": _torch, "onnx": _onnxruntime}


def _distance(got: list[list[np.ndarray]], want: list[list[np.ndarray]]) -> float:
    """The worst over inputs and outputs of max|a-b| / max|b|."""
    return max(
        float(np.abs(a.astype(np.float64) - b).max() / np.abs(b).max())
        for arrays, wanted in zip(got, want, strict=True)
        for a, b in zip(arrays, wanted, strict=True)
    )


def _one(context: Context, net: Net, source: Source) -> Iterator[Check]:
    import tvmcomp as tc

    compiled = context.compiled(net, source, "float32")
    inputs = _inputs(context, net)
    with tc.load(compiled.path) as network:
        got = [list(network.run(compiled.named(arrays)).values()) for arrays in inputs]
    want = _FRAMEWORKS[source](context, net, inputs)
    yield at_most(
        f"{net.name} from {source}: max|a-b| / max|b|",
        _distance(got, want),
        _LIMIT,
        f"{len(inputs)} inputs, largest output {max(np.abs(w).max() for w in want[0]):.3g}",
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
