"""The static checker on legal programs and on the same ones broken: no false alarm, nothing missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from acceptance.context import Context
from acceptance.from_tests import from_tests
from acceptance.row import Check, Row, figure, holds

if TYPE_CHECKING:
    from tvmcomp.vta.config import VtaConfig
    from tvmcomp.vta.container import Program

__all__ = ["ROW"]

_PROGRAMS = 500


def _without_a_token(stream: list[Any], rng: np.random.Generator) -> list[Any]:
    from tvmcomp.vta.layout import DEPENDENCIES

    held = [
        (i, flag) for i, ins in enumerate(stream) for flag in DEPENDENCIES if getattr(ins, flag)
    ]
    if not held:
        return stream
    index, flag = held[int(rng.integers(0, len(held)))]
    stream[index] = replace(stream[index], **{flag: 0})
    return stream


def _without_a_pair(stream: list[Any], rng: np.random.Generator) -> list[Any]:
    """A push and the pop that takes its token: no token is left over, only the order is gone."""
    from tvmcomp.vta.tokens import TOKENS, pops, pushes

    used = [t for t in TOKENS if any(t in pushes(i) for i in stream)]
    if not used:
        return stream
    token = used[int(rng.integers(0, len(used)))]
    put = [i for i, ins in enumerate(stream) if token in pushes(ins)]
    taken = [i for i, ins in enumerate(stream) if token in pops(ins)]
    which = int(rng.integers(0, len(put)))
    stream[put[which]] = replace(stream[put[which]], **{TOKENS[token].push: 0})
    stream[taken[which]] = replace(stream[taken[which]], **{TOKENS[token].pop: 0})
    return stream


def _with_an_address_shifted(stream: list[Any], rng: np.random.Generator) -> list[Any]:
    """One transfer onto the elements of another one of its memory."""
    from tvmcomp.vta.isa import Load, Store

    moved = [i for i, ins in enumerate(stream) if isinstance(ins, Load | Store) and ins.x_size]
    index = moved[int(rng.integers(0, len(moved)))]
    others = [
        i for i in moved
        if type(stream[i]) is type(stream[index])
        and stream[i].memory_type == stream[index].memory_type
        and stream[i].sram_base != stream[index].sram_base
    ]  # fmt: skip
    if others:
        base = stream[others[int(rng.integers(0, len(others)))]].sram_base
        stream[index] = replace(stream[index], sram_base=base)
    return stream


_BREAKS: tuple[Callable[[list[Any], np.random.Generator], list[Any]], ...] = (
    _without_a_token,
    _without_a_pair,
    _with_an_address_shifted,
)


def _legal(seed: int, rng: np.random.Generator) -> tuple[VtaConfig, Program]:
    """By turns a random program, and a tiled one whose loads run under the GEMMs of the other context."""
    if seed % 2:
        workloads = from_tests("vta_workloads")
        tile = int(rng.choice([16, 32, 48]))
        size = tile * int(rng.integers(2, 5))
        return workloads.CONFIG, workloads.matrix_multiply_opt(size, tile, contexts=2)[0]
    programs = from_tests("vta_programs")
    config = programs.CONFIGS[seed // 2 % len(programs.CONFIGS)]
    return config, programs.random_program(rng, config)


def _run(context: Context) -> Iterator[Check]:
    from tvmcomp.vta.check import check
    from tvmcomp.vta.container import Program
    from tvmcomp.vta.isa import Stage
    from tvmcomp.vta.simulate import simulate

    count = context.scaled(_PROGRAMS)
    alarms, missed = [], []
    named: Counter[str] = Counter()
    for seed in range(count):
        rng = np.random.default_rng(1000 + seed)
        config, program = _legal(seed, rng)
        alarms += [f"seed {seed}: {finding.message}" for finding in check(program, config)]
        for change in _BREAKS:
            broken = Program(program.dram, (tuple(change(list(program.launches[0]), rng)),))
            findings = check(broken, config)
            if findings:
                named[f"{change.__name__.strip('_')}: {findings[0].kind}"] += 1
                continue
            named[f"{change.__name__.strip('_')}: harmless"] += 1
            results = [simulate(broken, config, start=start, fill=9) for start in Stage]
            outcomes = {(r.error, r.dram.tobytes(), r.machine.dump()) for r in results}
            if len(outcomes) > 1:
                missed.append(f"seed {seed}, {change.__name__}")
    yield holds(f"{count} legal programs: no false alarm", not alarms, "; ".join(alarms[:3]))
    yield holds(
        f"{count} x {len(_BREAKS)} broken ones: named, or the same result from every queue",
        not missed,
        "; ".join(missed[:3]),
    )
    for what, times in sorted(named.items()):
        yield figure(what, times)


ROW = Row(
    "vta-check", "500 legal programs: no false alarm; broken, the fault is named or harmless", _run
)
