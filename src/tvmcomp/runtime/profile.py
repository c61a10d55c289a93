"""Where a network's time goes: the median time of each kernel call."""

from __future__ import annotations

from time import perf_counter_ns

import numpy as np

from tvmcomp.artifact import Payload
from tvmcomp.runtime.arrays import admit, aligned_empty
from tvmcomp.runtime.host import check_host, find_runtime
from tvmcomp.runtime.native import Executor, Program, set_threads

__all__ = ["OWN", "kernel_times"]

OWN = ("vm.", "runtime.")  # functions of the machine itself, as the names of kernels never begin


def kernel_times(payload: Payload, *, warmup: int = 3, repeats: int = 20) -> tuple[float, ...]:
    """Milliseconds of each kernel call in calling order, one thread, on the golden inputs.

    The least time seen for one of the machine's own functions is what looking costs; it is taken off.
    """
    runtime = find_runtime()
    check_host(payload, runtime)
    program = Program(payload, runtime)
    signature = payload.function.signature
    inputs = [admit(name, payload.golden_inputs[name], t) for name, t in signature.inputs.items()]
    outputs = [aligned_empty(t.shape, np.dtype(t.dtype)) for t in signature.outputs.values()]
    watch = _Watch()
    executor = Executor(program, watch)
    set_threads(program.ffi, 1)
    runs = []
    for number in range(warmup + repeats):
        watch.kernels.clear()
        executor.run(inputs, outputs)
        if number >= warmup:
            runs.append(list(watch.kernels))
    taken = np.maximum(np.median(np.asarray(runs, np.float64), axis=0) - watch.cost, 0)
    return tuple(float(ns) / 1e6 for ns in taken)


class _Watch:
    """An instrument: nanoseconds of the kernels of one run, and the least of any function of the machine."""

    def __init__(self) -> None:
        self.kernels: list[int] = []
        self.cost = 0
        self._begun = 0

    def __call__(self, function: object, name: str, before: bool, *_: object) -> None:
        if before:
            self._begun = perf_counter_ns()
            return
        taken = perf_counter_ns() - self._begun
        if not name.startswith(OWN):
            self.kernels.append(taken)
        elif not self.cost or taken < self.cost:
            self.cost = taken
