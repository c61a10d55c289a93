"""Energy per inference from the processor's own counters (RAPL), or null with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tvmcomp.errors import UsageError

__all__ = ["Energy", "energy"]

_ROOT = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Energy:
    """Joules per inference: median and spread over `windows`; all None when `reason` says why.

    The counters cover everything the listed domains did meanwhile, idle power and other programs
    included.
    """

    joules: float | None
    p10: float | None
    p90: float | None
    windows: int
    calls: int
    domains: tuple[str, ...]
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {**asdict(self), "domains": list(self.domains)}


@dataclass(frozen=True)
class _Domain:
    """One counter of micro-joules that starts again from 0 after `span`."""

    name: str
    counter: Path
    span: int

    def read(self) -> int:
        return int(self.counter.read_text())

    def spent(self, before: int, after: int) -> int:
        return after - before if after >= before else after + self.span - before


def energy(
    call: Callable[[], object],
    *,
    windows: int = 5,
    seconds: float = 0.5,
    root: Path = _ROOT,
) -> Energy:
    """Call repeatedly in `windows` of `seconds` each, and divide the joules of each by its calls.

    A window is far longer than the counter's step (1 ms) and far shorter than its span (minutes), so
    it sees at most one wraparound.
    """
    if windows < 1 or seconds < 0:
        raise UsageError(
            f"windows {windows}, seconds {seconds}: need windows >= 1 and seconds >= 0"
        )
    try:
        domains = _domains(root)
        for domain in domains:
            domain.read()
    except (OSError, ValueError) as error:
        return _missing(
            f"{_fault(error)}: RAPL counters are not readable; run as root to read them"
        )
    if not domains:
        return _missing(
            f"no RAPL counters under {root}: the processor or its hypervisor shows none"
        )
    names = tuple(domain.name for domain in domains)
    joules: list[float] = []
    calls = 0
    call()
    for _ in range(windows):
        before = [domain.read() for domain in domains]
        done = _run_for(call, seconds)
        after = [domain.read() for domain in domains]
        spent = sum(d.spent(*pair) for d, *pair in zip(domains, before, after, strict=True))
        joules.append(spent / 1e6 / done)
        calls += done
    if min(joules) == 0:
        return _missing(f"the RAPL counters {', '.join(names)} stand still on this machine")
    p10, median, p90 = (float(value) for value in np.percentile(joules, [10, 50, 90]))
    return Energy(median, p10, p90, windows, calls, names, None)


def _domains(root: Path) -> tuple[_Domain, ...]:
    """The packages, and the memory beside each; cores and graphics are parts of a package.

    `intel-rapl-mmio:*` repeats `intel-rapl:*` by another path and is left out; "psys" contains both.
    """
    found: list[_Domain] = []
    for folder in sorted(root.glob("intel-rapl:*")):
        name = (folder / "name").read_text().strip()
        if name.startswith("package") or name == "dram":
            span = int((folder / "max_energy_range_uj").read_text())
            found.append(_Domain(f"{folder.name} {name}", folder / "energy_uj", span))
    return tuple(found)


def _run_for(call: Callable[[], object], seconds: float) -> int:
    end = perf_counter() + seconds
    calls = 0
    while True:
        call()
        calls += 1
        if perf_counter() >= end:
            return calls


def _missing(reason: str) -> Energy:
    return Energy(None, None, None, 0, 0, (), reason)


def _fault(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error)
