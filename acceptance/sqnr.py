"""Int8: signal to quantization noise against float32, beside ONNX Runtime's quantizer on the same data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from acceptance.context import SOURCES, Context
from acceptance.nets import Net
from acceptance.row import Check, Row, at_least, figure, tried

__all__ = ["ROW", "sqnr_db"]

_BELOW = 1.0


def sqnr_db(want: np.ndarray, got: np.ndarray) -> float:
    """10 log10(sum want^2 / sum (want - got)^2)."""
    want = want.astype(np.float64)
    noise = float(np.square(want - got).sum())
    return float("inf") if noise == 0 else float(10 * np.log10(np.square(want).sum() / noise))


def _peer(context: Context, net: Net) -> np.ndarray:
    """Outputs of `quantize_static`: per channel, QDQ, u8 activations, s8 weights, min-max."""
    import onnx
    import onnxruntime as ort

    from tvmcomp.measure.exchange import save_arrays
    from tvmcomp.measure.peers.onnxruntime import quantize

    whole = context.folder / f"{net.name}-whole.onnx"
    target = context.folder / f"{net.name}-ort-qdq.onnx"
    calibration = context.folder / f"{net.name}-ort-calibration.npz"
    save_arrays(calibration, {"x": context.calibration(net)})
    # One file: the quantizer's preparation loses sight of weights in a file of their own.
    onnx.save(onnx.load(context.files(net).onnx), whole)
    with context.stage(f"onnxruntime quantize_static {net.name}"):
        quantize(
            source=str(whole),
            target=str(target),
            calibration=str(calibration),
            shapes={"x": [1, 3, net.size, net.size]},
        )
    session = ort.InferenceSession(target, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"x": x})[0] for x in context.evaluation(net)])


def _one(context: Context, net: Net) -> Iterator[Check]:
    import tvmcomp as tc

    want, inputs = context.framework(net), context.evaluation(net)
    peer = _peer(context, net)
    theirs = sqnr_db(want, peer)
    each = [sqnr_db(w, p) for w, p in zip(want, peer, strict=True)]
    yield figure(f"{net.name}: SQNR of ONNX Runtime, dB", theirs, _each(each))
    for source in SOURCES:

        def ours(source=source) -> Iterator[Check]:  # type: ignore[no-untyped-def]
            with tc.load(context.compiled(net, source, "int8").path) as network:
                got = np.stack([network(x) for x in inputs])
            own = [sqnr_db(w, g) for w, g in zip(want, got, strict=True)]
            about = f"{net.name} from {source}"
            # Over all inputs together; each one apart is in the detail.
            yield at_least(f"{about}: SQNR, dB", sqnr_db(want, got), theirs - _BELOW, _each(own))
            same = float(np.mean(want.argmax(-1) == got.argmax(-1)))
            yield figure(f"{about}: same best class as float32", same)

        yield from tried(f"{net.name} from {source}", ours)


def _each(values: list[float]) -> str:
    """Of the inputs one by one: a loud one outweighs many in the sum."""
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    return (
        f"{len(values)} inputs: mean {np.mean(values):.2f}, {low:.2f} .. {middle:.2f} .. {high:.2f}"
    )


def _run(context: Context) -> Iterator[Check]:
    for net in context.nets:
        yield from tried(net.name, lambda n=net: _one(context, n))


ROW = Row(
    "sqnr",
    "int8: SQNR against float32 at most 1 dB below ONNX Runtime's quantize_static (per channel, same data)",
    _run,
)
