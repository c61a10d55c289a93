"""Published VTA counters, and how fast the simulator is: a GEMM of 256 x 256 x 256 and a 3x3 convolution."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from acceptance.context import Context
from acceptance.from_tests import from_tests
from acceptance.row import Check, Row, at_least, holds

__all__ = ["ROW"]

_REPEATS = 9


def _run(context: Context) -> Iterator[Check]:
    from tvmcomp.vta.simulate import simulate

    workloads = from_tests("vta_workloads")
    for workload, counters in workloads.PUBLISHED.items():
        program, address, expected = workload()
        result = simulate(program, workloads.CONFIG)
        got = tuple(result.counters.to_dict().values())
        yield holds(
            f"{workload.__name__}: published counters {counters}", got == counters, f"{got}"
        )
        memory = result.dram[address : address + expected.size]
        yield holds(f"{workload.__name__}: numpy's result", memory.tobytes() == expected.tobytes())
    for name, workload in (
        ("GEMM 256x256x256", workloads.matrix_matrix),
        ("3x3 convolution, 14x14x256", workloads.convolution_opt),
    ):
        program, address, expected = workload()
        seconds = []
        for _ in range(_REPEATS):
            begun = time.process_time()
            result = simulate(program, workloads.CONFIG)
            seconds.append(time.process_time() - begun)
        memory = result.dram[address : address + expected.size]
        yield holds(f"{name}: numpy's result", memory.tobytes() == expected.tobytes())
        macs = result.counters.gemm_counter * workloads.CONFIG.batch * workloads.CONFIG.block**2
        median = statistics.median(seconds)
        yield at_least(
            # CPU time: one thread, and other work on the machine does not count.
            f"{name}: GMAC/s of the whole program, one core, by CPU time",
            macs / median / 1e9,
            1.0,
            f"{macs} MACs, median {median * 1e3:.2f} ms, {min(seconds) * 1e3:.2f} to {max(seconds) * 1e3:.2f}",
        )


ROW = Row("vta-speed", "published counters; at least 1 GMAC/s on one core", _run)
