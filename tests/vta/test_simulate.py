"""The simulator against a slow model written apart from it, and what it says about programs that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcomp.vta.isa import Stage
from tvmcomp.vta.simulate import simulate
from vta_model import SlowModel
from vta_programs import CONFIGS, random_program

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
