"""Hand-written programs: right results, and the counters that were published for them."""

from __future__ import annotations

import pytest

from tvmcomp.errors import VtaError
from tvmcomp.vta.builder import Builder
from tvmcomp.vta.check import check
from tvmcomp.vta.config import Memory
from tvmcomp.vta.isa import Stage, Uop
from tvmcomp.vta.machine import Mode
from tvmcomp.vta.simulate import simulate
from vta_workloads import CONFIG, PUBLISHED, matrix_multiply_opt


@pytest.mark.parametrize("workload", PUBLISHED, ids=lambda w: w.__name__)
def test_published_counters_and_the_right_result(workload):
    program, address, expected = workload()
    assert check(program, CONFIG) == []
    for start in Stage:
        result = simulate(program, CONFIG, start=start, fill=0xA5)
        assert result.error is None
        assert tuple(result.counters.to_dict().values()) == PUBLISHED[workload]
        assert result.dram[address : address + expected.size].tobytes() == expected.tobytes()


@pytest.mark.parametrize("mode", [Mode.STRICT, Mode.HARDWARE])
@pytest.mark.parametrize("workload", PUBLISHED, ids=lambda w: w.__name__)
def test_they_are_portable(workload, mode):
    program, address, expected = workload()
    result = simulate(program, CONFIG, mode=mode)
    assert result.error is None
    assert result.dram[address : address + expected.size].tobytes() == expected.tobytes()


def test_two_contexts_give_the_same_result():
    program, address, expected = matrix_multiply_opt(512, 128, contexts=2)
    assert check(program, CONFIG) == []
    result = simulate(program, CONFIG)
    assert result.dram[address : address + expected.size].tobytes() == expected.tobytes()


def test_what_the_builder_refuses():
    b = Builder(CONFIG)
    with pytest.raises(VtaError, match="no token queue from LOAD to STORE"):
        b.push(Stage.LOAD, Stage.STORE)
    with pytest.raises(VtaError, match="is no multiple of the 256 bytes of a WGT element"):
        b.load(Memory.WGT, 4096 + 16)
    with pytest.raises(VtaError, match="x_size is 70000"):
        b.load(Memory.INP, 4096, cols=70000)
    with pytest.raises(VtaError, match="holds 8192 and a list at least one"):
        b.uops([Uop()] * 8193)


def test_a_program_is_built_once():
    b = Builder(CONFIG)
    b.build()
    with pytest.raises(VtaError, match="begin another Builder"):
        b.build()
