"""Int8: the compiled network equals the integer reference bit for bit, end to end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from acceptance.context import SOURCES, Arrays, Context, Source
from acceptance.locate import first_difference
from acceptance.nets import Net
from acceptance.opaque import opaque_runner
from acceptance.row import Check, Row, holds, tried

__all__ = ["ROW"]


def _inputs(context: Context, net: Net) -> dict[str, Arrays]:
    """Two samples, and beside them noise beyond every calibrated range and what saturates at one end.

    Where inputs are integers, two more samples take their place: any index is in the table.
    """
    samples = context.evaluation(net)
    found = {"sample 0": samples[0], "sample 1": samples[1]}
    if any(array.dtype.kind != "f" for array in samples[0].values()):
        more = net.inputs(2, seed=4)
        for i in range(2):
            found[f"sample {2 + i}"] = {name: array[i : i + 1] for name, array in more.items()}
        return found
    rng = np.random.default_rng(4)
    ends = np.array([np.nan, np.inf, -np.inf, -100, -100, 0, 0, 1], np.float32)
    found["loud noise"] = {
        name: (4 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in samples[0].items()
    }
    found["NaN, infinities and -100"] = {
        name: np.resize(ends, array.shape) for name, array in samples[0].items()
    }
    return found


def _one(context: Context, net: Net, source: Source) -> Iterator[Check]:
    import tvmcomp as tc
    from tvmcomp.compress import reference

    compiled = context.compiled(net, source, "int8")
    with tc.load(compiled.path) as network:
        for about, arrays in _inputs(context, net).items():
            inputs = compiled.named(arrays)
            with context.stage(f"reference {net.name}/{source}/{about}"):
                want = list(
                    reference.run(compiled.graph, inputs, opaque_runner(compiled.graph)).values()
                )
            got = list(network.run(inputs).values())
            differing = sum(
                int(np.any(_bits(a) != _bits(b), axis=1).sum())
                for a, b in zip(got, want, strict=True)
            )
            detail = (
                f"{differing} of {sum(w.size for w in want)} values differ" if differing else ""
            )
            if differing:
                detail += "; " + _located(compiled.graph, inputs)
            yield holds(
                f"{net.name} from {source}, {about}: equals the reference", not differing, detail
            )


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint8).reshape(array.size, -1)


def _located(graph, inputs) -> str:  # type: ignore[no-untyped-def]
    try:
        return first_difference(graph, inputs)
    except Exception as error:
        return f"looking for the layer failed: {type(error).__name__}: {error}"


def _run(context: Context) -> Iterator[Check]:
    for net in context.nets:
        for source in SOURCES:
            yield from tried(
                f"{net.name} from {source}", lambda n=net, s=source: _one(context, n, s)
            )


ROW = Row(
    "int8-exact", "int8: bit-equal to the integer reference end to end, from torch and ONNX", _run
)
