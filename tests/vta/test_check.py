"""The static checker: silent on legal programs, and right about broken ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvmcomp.vta.check import check
from tvmcomp.vta.container import Program
from tvmcomp.vta.isa import Stage
from tvmcomp.vta.simulate import simulate
from vta_programs import CONFIGS, random_program

PROGRAMS = 12  # per configuration
FLAGS = ("pop_prev", "pop_next", "push_prev", "push_next")


def outcomes(program, config):
    results = [simulate(program, config, start=start, fill=7) for start in Stage]
    return {(r.error is None, r.dram.tobytes(), r.machine.dump()) for r in results}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_legal_programs_raise_no_alarm(config):
    rng = np.random.default_rng(5)
    for _ in range(PROGRAMS):
        assert check(random_program(rng, config), config) == []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_a_program_without_one_of_its_tokens_is_named_or_harmless(config):
    rng = np.random.default_rng(6)
    named = 0
    for _ in range(PROGRAMS):
        program = random_program(rng, config)
        (stream,) = program.launches
        held = [(i, flag) for i, ins in enumerate(stream) for flag in FLAGS if getattr(ins, flag)]
        index, flag = held[int(rng.integers(0, len(held)))]
        broken = list(stream)
        broken[index] = replace(broken[index], **{flag: 0})
        mutant = Program(program.dram, (tuple(broken),))
        findings = check(mutant, config)
        named += bool(findings)
        if not findings:
            assert len(outcomes(mutant, config)) == 1
    assert named
