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


def _peer(context: Context, net: Net) -> list[np.ndarray]:
    """Outputs of `quantize_static`: per channel, QDQ, u8 activations, s8 weights, min-max."""
    import onnx
    import onnxruntime as ort

    from tvmcomp.measure.exchange import save_arrays
    from tvmcomp.measure.peers.onnxruntime import quantize

    whole = context.folder / f"{net.name}-whole.onnx"
    target = context.folder / f"{net.name}-ort-qdq.onnx"
    calibration = context.folder / f"{net.name}-ort-calibration.npz"
    save_arrays(calibration, context.calibration(net))
    # One file: the quantizer's preparation loses sight of weights in a file of their own.
    onnx.save(onnx.load(context.files(net).onnx), whole)
    samples = context.evaluation(net)
    with context.stage(f"onnxruntime quantize_static {net.name}"):
        quantize(
            source=str(whole),
            target=str(target),
            calibration=str(calibration),
            shapes={name: list(array.shape) for name, array in samples[0].items()},
        )
    session = ort.InferenceSession(target, providers=["CPUExecutionProvider"])
    each = [session.run(None, arrays) for arrays in samples]
    return [np.stack(arrays) for arrays in zip(*each, strict=True)]


def _one(context: Context, net: Net) -> Iterator[Check]:
    import tvmcomp as tc

    wanted, samples = context.framework(net), context.evaluation(net)
    peers = _peer(context, net)
    theirs = [sqnr_db(want, peer) for want, peer in zip(wanted, peers, strict=True)]
    for place, (want, peer) in enumerate(zip(wanted, peers, strict=True)):
        each = [sqnr_db(w, p) for w, p in zip(want, peer, strict=True)]
        about = f"{net.name}{_place(place, wanted)}"
        yield figure(f"{about}: SQNR of ONNX Runtime, dB", theirs[place], _each(each))
    for source in SOURCES:

        def ours(source=source) -> Iterator[Check]:  # type: ignore[no-untyped-def]
            compiled = context.compiled(net, source, "int8")
            with tc.load(compiled.path) as network:
                calls = [list(network.run(compiled.named(s)).values()) for s in samples]
            results = [np.stack(arrays) for arrays in zip(*calls, strict=True)]
            for place, (want, got) in enumerate(zip(wanted, results, strict=True)):
                own = [sqnr_db(w, g) for w, g in zip(want, got, strict=True)]
                about = f"{net.name}{_place(place, wanted)} from {source}"
                # Over all inputs together; each one apart is in the detail.
                limit = theirs[place] - _BELOW
                yield at_least(f"{about}: SQNR, dB", sqnr_db(want, got), limit, _each(own))
                same = float(np.mean(want.argmax(-1) == got.argmax(-1)))
                yield figure(f"{about}: same best class as float32", same)

        yield from tried(f"{net.name} from {source}", ours)


def _place(index: int, outputs: list[np.ndarray]) -> str:
    return f", output {index}" if len(outputs) > 1 else ""


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
