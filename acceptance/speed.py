"""ResNet-50, one thread, batch 1: int8 against our float32, our float32 against PyTorch eager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from acceptance.context import Context
from acceptance.row import Check, Row, at_least, figure

__all__ = ["ROW"]

_INT8, _FLOAT = 2.5, 1.0


def _run(context: Context) -> Iterator[Check]:
    from tvmcomp.measure import Contender, Turns, bench

    net = context.net("resnet50")
    own = "tvmcomp.cli.subject:open_artifact"
    paths = {p: context.compiled(net, "torch", p).path for p in ("float32", "int8")}
    ours = {p: Contender("tvmcomp", p, own, {"path": str(path)}) for p, path in paths.items()}
    eager = Contender(
        "torch",
        "float32",
        "tvmcomp.measure.peers.torch:open_eager",
        {"path": str(context.files(net).torch)},
    )
    x = context.evaluation(net)[0]["x"]
    name = context.compiled(net, "torch", "int8").inputs[0]
    turns = Turns(rounds=context.scaled(10), repeats=100, min_seconds=10 * context.trials)
    result = bench(
        ours["float32"],
        [ours["int8"], eager],
        [{name: x}],
        description="a photograph",
        threads=1,
        turns=turns,
    )
    entries = {f"{e['name']} {e['precision']}": e for e in (result["subject"], *result["peers"])}
    for label, entry in entries.items():
        yield figure(f"{label}: median ms", entry["median_ms"], _spread(entry))
    float32, int8, torch = entries.values()
    yield at_least(
        "int8 against our float32: ratio of medians",
        float32["median_ms"] / int8["median_ms"],
        _INT8,
    )
    yield at_least(
        "our float32 against PyTorch eager: ratio of medians", torch["ratio"] or 0.0, _FLOAT
    )
    # What other processes take from a shared machine shows least in the fastest calls.
    yield figure("int8 against our float32: ratio of p10", float32["p10_ms"] / int8["p10_ms"])
    if torch["p10_ms"]:
        yield figure(
            "our float32 against PyTorch eager: ratio of p10", torch["p10_ms"] / float32["p10_ms"]
        )


def _spread(entry: dict[str, Any]) -> str:
    if entry["reason"]:
        return str(entry["reason"])
    rounds = ", ".join(f"{value:.2f}" for value in entry["round_median_ms"])
    return (
        f"p10 {entry['p10_ms']:.3f}, p90 {entry['p90_ms']:.3f}, {entry['repeats']} calls, "
        f"medians by round: {rounds}"
    )


ROW = Row(
    "speed",
    "ResNet-50, 1 thread, batch 1: int8 >= 2.5x our float32; our float32 not slower than PyTorch eager",
    _run,
)
