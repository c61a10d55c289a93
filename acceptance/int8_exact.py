"""Int8: the compiled network equals the integer reference bit for bit, end to end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from acceptance.context import SOURCES, Context, Source
from acceptance.locate import first_difference
from acceptance.nets import Net
from acceptance.row import Check, Row, holds, tried

__all__ = ["ROW"]


def _inputs(context: Context, net: Net) -> dict[str, np.ndarray]:
    """Two photographs, noise beyond every calibrated range, and what saturates at one end."""
    shape = (1, 3, net.size, net.size)
    noise = 4 * np.random.default_rng(4).standard_normal(shape)
    evaluation = context.evaluation(net)
    return {
        "photograph 0": evaluation[0],
        "photograph 1": evaluation[1],
        "loud noise": noise.astype(np.float32),
        "NaN, infinities and -100": np.resize(
            np.array([np.nan, np.inf, -np.inf, -100, -100, 0, 0, 1], np.float32), shape
        ),
    }


def _one(context: Context, net: Net, source: Source) -> Iterator[Check]:
    import tvmcomp as tc
    from tvmcomp.compress import reference

    compiled = context.compiled(net, source, "int8")
    (name,) = compiled.graph.inputs
    with tc.load(compiled.path) as network:
        for about, x in _inputs(context, net).items():
            with context.stage(f"reference {net.name}/{source}/{about}"):
                (want,) = reference.run(compiled.graph, {name: x}).values()
            got = np.asarray(network(x))
            differing = int(np.any(_bits(got) != _bits(want), axis=1).sum())
            detail = f"{differing} of {want.size} values differ" if differing else ""
            if differing:
                detail += "; " + _located(compiled.graph, {name: x})
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
