"""ResNet-50 int8 from import to a saved file, in a fresh process; calibration apart."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from acceptance.apart import run_apart
from acceptance.context import SOURCES, Context
from acceptance.row import Check, Row, at_most, figure, tried

__all__ = ["ROW", "measure"]

_LIMIT = 40.0


def measure(model: str, calibration: str, output: str) -> dict[str, float]:
    """Seconds by stage, wall clock and this process's CPU; for a fresh process."""
    seconds: dict[str, float] = {}
    clock, processor = time.perf_counter(), time.process_time()
    begun = clock

    def lap(name: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[name], clock = now - clock, now

    import tvmcomp as tc
    from tvmcomp import flow

    # Libraries load at first use; a user waits for them too.
    flow.Target.load("host")
    lap("load libraries")
    loaded = tc.load_model(model)
    lap("import")
    collect, spent = flow.collect, 0.0

    def timed(*arguments, **options):  # type: ignore[no-untyped-def]
        nonlocal spent
        start = time.perf_counter()
        try:
            return collect(*arguments, **options)
        finally:
            spent = time.perf_counter() - start

    flow.collect = timed  # calibration happens inside compress
    with np.load(calibration) as file:
        compressed = tc.compress(loaded, "int8", dict(file))
    lap("compress")
    seconds["calibrate"] = spent
    seconds["compress"] -= spent
    executable = tc.compile(compressed)
    lap("compile")
    executable.save(output)
    lap("save")
    seconds["everything"] = time.perf_counter() - begun
    seconds["processor time of this process"] = time.process_time() - processor
    return seconds


def _run(context: Context) -> Iterator[Check]:
    net = context.net("resnet50")
    for source in SOURCES:

        def one(source=source) -> Iterator[Check]:  # type: ignore[no-untyped-def]
            options = {
                "model": str(getattr(context.files(net), source)),
                "calibration": str(context.calibration_file(net)),
                "output": str(context.folder / f"compile-time-{source}.tvmcomp"),
            }
            found = run_apart("acceptance.compile_time:measure", options)
            counted = found["everything"] - found["calibrate"]
            stages = ", ".join(f"{name} {s:.1f}" for name, s in found.items())
            yield at_most(
                f"{net.name} int8 from {source}: s without calibration", counted, _LIMIT, stages
            )
            samples = f"{context.calibration_samples} samples"
            yield figure(
                f"{net.name} int8 from {source}: s of calibration", found["calibrate"], samples
            )

        yield from tried(f"{net.name} from {source}", one)


ROW = Row("compile", "ResNet-50 int8 compiles in at most 40 s, from import to saved file", _run)
