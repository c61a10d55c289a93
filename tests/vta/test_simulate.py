"""The simulator against a slow model written apart from it, and what it says about programs that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcomp.vta.container import Program
from tvmcomp.vta.isa import Alu, Finish, Gemm, Load, Stage
from tvmcomp.vta.simulate import simulate
from vta_model import SlowModel
from vta_programs import CONFIGS, random_program
from vta_workloads import CONFIG

PROGRAMS = 40  # per configuration


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_random_programs_equal_the_slow_model_whichever_queue_starts(config):
    rng = np.random.default_rng(11)
    for _ in range(PROGRAMS):
        program = random_program(rng, config, launches=int(rng.integers(1, 3)))
        fill = int(rng.integers(0, 256))
        slow = SlowModel(config, program.dram.tobytes(), fill)
        slow.run(program, "compute")
        for start in Stage:
            result = simulate(program, config, start=start, fill=fill)
            assert result.error is None
            assert result.dram.tobytes() == bytes(slow.dram)
            assert result.machine.dump() == slow.sram()
            assert result.counters.to_dict() == slow.counters
            assert (result.insns_left, set(result.tokens_left.values())) == (0, {0})


def test_hours_of_work_are_refused():
    longest = Gemm(uop_end=8192, iter_out=16383, iter_in=16383)
    program = Program(np.zeros(4096, np.uint8), ((Gemm(uop_end=5), longest, Finish()),))
    error = simulate(program, CONFIG).error
    assert "launch 0, instruction 1 (gemm uops=0:8192 iter=16383x16383)" in error
    assert f"more than the limit of {1 << 32}" in error
    few = Program(program.dram, ((Gemm(uop_end=5), Alu(uop_end=3), Finish()),))
    assert simulate(few, CONFIG, limit=8).error is None
    assert "8 iterations" in simulate(few, CONFIG, limit=7).error


def test_what_is_left_is_counted_over_all_launches():
    waits = (Finish(), Load(pop_next=1), Load(memory_type=2, pop_next=1))
    program = Program(np.zeros(4096, np.uint8), (waits, (Finish(),), waits))
    result = simulate(program, CONFIG)
    assert (result.error, result.executed, result.insns_left) == (None, 3, 4)


@pytest.mark.parametrize("start", Stage)
def test_tokens_are_taken_all_at_once(start):
    """An instruction that waits for two tokens takes neither until both are there."""
    both = Load(pop_prev=1, pop_next=1)
    stream = (Load(memory_type=2, push_next=1), both, Finish())
    result = simulate(Program(np.zeros(4096, np.uint8), (stream,)), CONFIG, start=start)
    assert (
        "deadlock: instruction 1 (load.uop pop_prev pop_next) waits for a token in s2g"
        in result.error
    )
    assert result.tokens_left["l2g"] == 1
