"""Latency of one call: warm-up apart, repeats until both a count and a time are reached, spread kept."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from time import perf_counter_ns
from typing import Any

import numpy as np

from tvmcomp.errors import DataError, UsageError
from tvmcomp.measure.affinity import check_threads, pinned
from tvmcomp.measure.provenance import (
    InputInfo,
    clock,
    device,
    load_average,
    versions,
)

__all__ = ["SCHEMA", "Measurement", "Spread", "latency", "spread", "time_calls"]

SCHEMA = 1
# Enough for steady percentiles; a call of a microsecond would otherwise fill memory with samples.
_MAX_SAMPLES = 20_000


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile in milliseconds of `repeats` timed calls."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int


@dataclass(frozen=True)
class Measurement:
    """A latency with all that is needed to doubt or repeat it; times in milliseconds.

    `load_average` is taken before the first call; `pinned_cpus` is None when nothing was pinned;
    `input` is None when the caller did not say what data the call works on.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int
    warmup: int
    threads: int
    pinned_cpus: tuple[int, ...] | None
    device: Mapping[str, Any]
    clock: Mapping[str, Any]
    versions: Mapping[str, str]
    load_average: tuple[float, float, float] | None
    input: InputInfo | None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, schema 1."""
        own: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        own["input"] = self.input.to_dict() if self.input else None
        for name in ("pinned_cpus", "load_average"):
            own[name] = None if own[name] is None else list(own[name])
        for name in ("device", "clock", "versions"):
            own[name] = dict(own[name])
        return {"schema": SCHEMA, **own}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """Read `to_dict`'s form back; DataError for another schema, a missing or an unknown key."""
        if data.get("schema") != SCHEMA:
            raise DataError(
                f"measurement has schema {data.get('schema')!r}, this version reads {SCHEMA}; "
                "measure again"
            )
        names = {field.name for field in fields(cls)}
        given = set(data) - {"schema"}
        if given != names:
            raise DataError(
                f"measurement lacks {sorted(names - given)} and has unknown {sorted(given - names)}; "
                "measure again"
            )
        own = {name: data[name] for name in names}
        own["input"] = InputInfo(**own["input"]) if own["input"] is not None else None
        for name in ("pinned_cpus", "load_average"):
            own[name] = None if own[name] is None else tuple(own[name])
        return cls(**own)


def latency(
    call: Callable[[], object],
    *,
    warmup: int = 5,
    repeats: int = 30,
    min_seconds: float = 0.5,
    threads: int = 1,
    pin: Sequence[int] | None = None,
    inputs: InputInfo | None = None,
) -> Measurement:
    """Time `call` after `warmup` untimed calls, `repeats` times at least and for `min_seconds` at least.

    `threads` is recorded, not set: whoever made `call` decided it. `pin` holds every thread of this
    process on those processors meanwhile.
    """
    if warmup < 0 or repeats < 1 or min_seconds < 0:
        raise UsageError(
            f"warmup {warmup}, repeats {repeats}, min_seconds {min_seconds}: "
            "need warmup >= 0, repeats >= 1 and min_seconds >= 0"
        )
    check_threads(threads, pin)
    load = load_average()
    with pinned(pin):
        for _ in range(warmup):
            call()
        samples = time_calls(call, repeats, min_seconds)
    found = spread(samples)
    return Measurement(
        median_ms=found.median_ms,
        p10_ms=found.p10_ms,
        p90_ms=found.p90_ms,
        repeats=found.repeats,
        warmup=warmup,
        threads=threads,
        pinned_cpus=None if pin is None else tuple(pin),
        device=device(),
        clock=clock(),
        versions=versions(),
        load_average=load,
        input=inputs,
    )


def time_calls(call: Callable[[], object], repeats: int, min_seconds: float) -> list[int]:
    """Nanoseconds of each call, until there are `repeats` of them and `min_seconds` have passed."""
    samples: list[int] = []
    floor = int(min_seconds * 1e9)
    collecting = gc.isenabled()
    # A collection in the middle of a call is the harness's time, not the network's.
    gc.disable()
    try:
        begin = perf_counter_ns()
        while True:
            start = perf_counter_ns()
            call()
            end = perf_counter_ns()
            samples.append(end - start)
            enough = len(samples) >= repeats and end - begin >= floor
            if enough or len(samples) >= max(repeats, _MAX_SAMPLES):
                return samples
    finally:
        if collecting:
            gc.enable()


def spread(samples: Sequence[int]) -> Spread:
    """Percentiles of samples given in nanoseconds."""
    p10, median, p90 = np.percentile(np.asarray(samples, np.float64), [10, 50, 90]) / 1e6
    return Spread(float(median), float(p10), float(p90), len(samples))
