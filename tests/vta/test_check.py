"""The static checker: silent on legal programs, and right about broken ones."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from tvmcomp.vta.check import check
from tvmcomp.vta.config import Memory
from tvmcomp.vta.container import Program
from tvmcomp.vta.isa import Finish, Gemm, Load, Stage, Store, Uop, encode_uops
from tvmcomp.vta.layout import DEPENDENCIES
from tvmcomp.vta.simulate import simulate
from vta_programs import CONFIGS, random_program
from vta_workloads import CONFIG

PROGRAMS = 12  # per configuration


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
        held = [
            (i, flag) for i, ins in enumerate(stream) for flag in DEPENDENCIES if getattr(ins, flag)
        ]
        index, flag = held[int(rng.integers(0, len(held)))]
        broken = list(stream)
        broken[index] = replace(broken[index], **{flag: 0})
        mutant = Program(program.dram, (tuple(broken),))
        findings = check(mutant, config)
        named += bool(findings)
        if not findings:
            assert len(outcomes(mutant, config)) == 1
    assert named


WAIT = Load(pop_prev=1)
USE = Gemm(uop_end=1, src_factor_out=1, iter_out=4)


def stream_of(*stream):
    """Micro-ops from 0x1000 on: one of zeros, one of a far accumulator."""
    dram = np.zeros(8 * 4096, np.uint8)
    dram[0x1000:0x1008] = encode_uops([Uop(), Uop(2047)], CONFIG).view(np.uint8)
    uops = Load(dram_base=0x400, y_size=1, x_size=2, x_stride=2)
    return Program(dram, ((uops, *stream, WAIT, Finish()),))


def load_inp(**fields):
    return Load(memory_type=Memory.INP, dram_base=256, y_size=1, x_size=1, **fields)


def test_a_race_is_shown_with_both_instructions_and_the_place():
    racing = stream_of(load_inp(sram_base=3, push_next=1), USE)
    (finding,) = check(racing, CONFIG)
    assert (finding.kind, finding.instructions) == ("race", (1, 2))
    assert "both touch INP element 3, and no token orders them" in finding.message
    assert check(stream_of(load_inp(sram_base=4, push_next=1), USE), CONFIG) == []


def test_transfers_race_in_dram():
    store = Store(
        memory_type=Memory.OUT, dram_base=300, y_size=2, x_size=1, x_stride=9, push_prev=1
    )
    load = replace(load_inp(push_next=1), dram_base=305, x_size=8)
    races = [f for f in check(stream_of(load, store, Load(pop_next=1)), CONFIG) if f.kind == "race"]
    assert [f.instructions for f in races] == [(1, 2)]
    assert "DRAM bytes 0x1350 to 0x135f" in races[0].message
    beside = replace(load, x_size=4)
    assert check(stream_of(beside, store, Load(pop_next=1)), CONFIG) == []


def test_the_end_of_a_stream():
    (early,) = check(Program(np.zeros(8192, np.uint8), ((Finish(), load_inp()),)), CONFIG)
    assert (early.kind, early.instructions) == ("finish", (0, 1))
    (none,) = check(Program(np.zeros(4096, np.uint8), ((Load(),),)), CONFIG)
    assert (none.kind, none.message) == ("finish", "no FINISH; end the stream with one")
    (left,) = check(Program(np.zeros(4096, np.uint8), ((Load(push_next=1), Finish()),)), CONFIG)
    assert (left.kind, left.message) == (
        "tokens",
        "tokens are left after the last launch: 1 in g2s",
    )


def test_micro_ops_decide_or_are_not_known():
    past = replace(USE, uop_bgn=1, uop_end=2, dst_factor_out=1)
    (finding,) = check(stream_of(load_inp(sram_base=9, push_next=1), past), CONFIG)
    assert (finding.kind, finding.instructions) == ("illegal", (2,))
    assert "dst index 2050 reaches past" in finding.message
    unknown = replace(USE, uop_bgn=5, uop_end=6)
    found = check(stream_of(load_inp(sram_base=9, push_next=1), unknown), CONFIG)
    assert [f.kind for f in found] == ["undecided", "race"]
    # Micro-ops that the program stores itself are not those of the image.
    store = Store(memory_type=Memory.OUT, dram_base=256, y_size=1, x_size=1, push_prev=1)
    wait = Load(pop_next=1)
    kinds = [
        f.kind
        for f in check(stream_of(load_inp(sram_base=9, push_next=1), USE, store, wait), CONFIG)
    ]
    assert "undecided" in kinds


def test_of_many_races_some_are_shown_and_soon():
    racing = stream_of(*[load_inp(), USE] * 3000, load_inp(push_next=1))
    begun = time.process_time()
    assert [f.kind for f in check(racing, CONFIG)] == ["race"] * 20
    assert time.process_time() - begun < 3


def test_flags_of_no_queue_are_named():
    (finding,) = check(stream_of(load_inp(push_next=1, pop_prev=1)), CONFIG)
    assert "pop_prev names a queue that does not exist" in finding.message
