"""Transfers that do not exist are named alike by the simulator, the checker and the cycle model."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcomp.errors import VtaError
from tvmcomp.vta.check import check
from tvmcomp.vta.config import Memory
from tvmcomp.vta.container import Program
from tvmcomp.vta.isa import Alu, Finish, Gemm, Illegal, Load, Stage, Store, stage_of
from tvmcomp.vta.simulate import simulate
from tvmcomp.vta.timing import profile
from vta_workloads import CONFIG

INP, OUT, ACC_8BIT = Memory.INP, Memory.OUT, Memory.ACC_8BIT


def program(*stream):
    return Program(np.ones(8 * 4096, np.uint8), ((*stream, Finish()),))


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        (Illegal(7), "opcode 7 does not exist"),
        (Load(memory_type=7, x_size=1, y_size=1), "memory_type 7 does not exist"),
        (Load(memory_type=OUT, x_size=1, y_size=1), "only STORE takes it"),
        (Store(memory_type=INP, x_size=1, y_size=1), "only 4 (OUT) can be stored"),
        (Store(memory_type=6, x_size=1, y_size=1), "only 4 (OUT) can be stored"),
        (Store(memory_type=OUT, x_size=1, y_size=1, x_pad_1=1), "STORE with padding"),
        (
            Load(memory_type=INP, sram_base=2000, dram_base=256, x_size=48, y_size=1, y_pad_0=1),
            "INP elements 2000 to 2095 reach past its depth 2048",
        ),
        (
            Load(memory_type=INP, dram_base=256, x_size=65535, y_size=65535),
            "reach past its depth 2048",
        ),
        (Store(memory_type=OUT, x_size=65535, y_size=65535), "reach past its depth 2048"),
        (Load(memory_type=INP, dram_base=255, x_size=1, y_size=1), "is in page 0"),
        (
            Load(memory_type=INP, dram_base=2047, x_size=2, y_size=1),
            "up to 0x8010 are read or written; the image ends at 0x8000",
        ),
        # 2^26 elements of 64 bytes are 2^32, so a quarter of it is in page 0.
        (Load(memory_type=ACC_8BIT, dram_base=1 << 26, x_size=1, y_size=1), "is in page 0"),
        (Gemm(uop_bgn=8190, uop_end=8193), "micro-ops up to 8193 reach past the UOP depth 8192"),
        (Alu(uop_end=1, alu_opcode=5), "alu_opcode 5 does not exist"),
    ],
)
def test_what_no_machine_runs(instruction, reason):
    broken = program(instruction)
    error = simulate(broken, CONFIG, start=stage_of(instruction)).error
    assert "instruction 0 (" in error
    assert reason in error
    named = [finding for finding in check(broken, CONFIG) if finding.kind == "illegal"]
    assert [finding.instructions for finding in named] == [(0,)]
    assert reason in named[0].message
    with pytest.raises(VtaError) as caught:
        profile(broken, CONFIG)
    assert "instruction 0 (" in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "instruction",
    [
        Load(memory_type=7, y_size=9, y_pad_0=3),
        Store(memory_type=INP, sram_base=65535, y_size=9),
        Load(memory_type=INP, dram_base=256, x_size=1),
        Store(memory_type=OUT, dram_base=256, x_size=1),
    ],
)
def test_a_transfer_of_nothing_is_legal(instruction):
    """x_size 0 is a no-op whatever else it says, y_size 0 moves no element."""
    still = program(instruction)
    result = simulate(still, CONFIG, start=stage_of(instruction), fill=3)
    assert result.error is None
    assert (result.dram[4096:] == 1).all()
    assert set(result.machine.dump()) == {3}
    assert [f for f in check(still, CONFIG) if f.kind == "illegal"] == []
    assert profile(still, CONFIG).bytes_read == 0


def test_rows_without_elements_still_write_their_zeros():
    load = Load(memory_type=INP, dram_base=256, x_size=2, y_pad_0=1, x_pad_1=1)
    result = simulate(program(load), CONFIG, start=Stage.LOAD, fill=3)
    assert result.machine.inp[:4, 0].tolist() == [0, 0, 0, 3]
    assert result.counters.inp_load_nbytes == 0


def test_bases_are_multiplied_in_32_bits():
    # 2^28 elements of 16 bytes wrap to 0, 256 more are the first mapped page.
    load = Load(memory_type=INP, dram_base=(1 << 28) + 256, x_size=1, y_size=1)
    assert simulate(program(load), CONFIG, start=Stage.LOAD).machine.inp[0, 0] == 1
    # ACC_8BIT: 64 bytes each, so 2^26 of them wrap already.
    load = Load(memory_type=ACC_8BIT, dram_base=(1 << 26) + 256, x_size=1, y_size=1)
    assert simulate(program(load), CONFIG).machine.acc[0, 0] == 1
