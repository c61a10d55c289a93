"""The cycle model against the rows measured on the un-pipelined RTL."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvmcomp.errors import VtaError
from tvmcomp.vta.builder import Builder, Loop
from tvmcomp.vta.config import Memory
from tvmcomp.vta.container import Program
from tvmcomp.vta.isa import Alu, AluOp, Finish, Gemm, Instruction, Load, Stage, Store, Uop
from tvmcomp.vta.picture import gantt, roofline
from tvmcomp.vta.timing import CLASSIC, PIPELINED, profile
from vta_workloads import CONFIG, matrix_multiply_opt

LATENCIES = [0, 1, 16, 64]


def program(*stream: Instruction) -> Program:
    return Program(np.zeros(1 << 16, np.uint8), ((*stream, Finish()),))


def cycles(instruction: Instruction, timing=CLASSIC) -> int:
    """Between the starts of two instructions of one stage, once both are there."""
    done = [e for e in profile(program(*[instruction] * 4), CONFIG, timing).events if e.index < 4]
    return done[3].end - done[2].end


@pytest.mark.parametrize("n", [1, 16, 300])
@pytest.mark.parametrize(
    ("instruction", "classic", "pipelined"),
    [
        (Gemm(uop_end=1), lambda n: 4 * n + 6, lambda n: n + 7),
        (Gemm(uop_end=1, reset=1), lambda n: 4 * n + 3, lambda n: n + 7),
        (Alu(uop_end=1, alu_opcode=AluOp.ADD, use_imm=1), lambda n: 5 * n + 3, lambda n: n + 7),
        (Alu(uop_end=1, alu_opcode=AluOp.ADD), lambda n: 6 * n + 3, lambda n: 2 * n + 7),
    ],
)
def test_compute(instruction, classic, pipelined, n):
    looped = replace(instruction, iter_out=n)
    assert cycles(looped) == classic(n)
    assert cycles(looped, PIPELINED) == pipelined(n)
    assert cycles(replace(instruction, iter_in=n, iter_out=2)) == classic(2 * n)


@pytest.mark.parametrize("nop", [Load(), Load(memory_type=Memory.INP), Store()])
def test_a_nop_takes_two_cycles(nop):
    assert cycles(nop) == 2


@pytest.mark.parametrize("latency", LATENCIES)
def test_loads(latency):
    timing = replace(CLASSIC, read_latency=latency)

    def load(**fields: int) -> Load:
        return Load(memory_type=Memory.INP, dram_base=256, **fields)

    # One row of 16 elements is 32 beats; rows are requests of their own, one after the other.
    assert cycles(load(y_size=1, x_size=16), timing) == latency + 2 + 32
    assert cycles(load(y_size=3, x_size=4, x_stride=9), timing) == 3 * (latency + 2 + 8)
    # 200 elements from address 4096 on are 3,200 bytes: a boundary of 2 KiB lies between.
    assert cycles(load(y_size=1, x_size=200), timing) == 2 * (latency + 2) + 400
    # Zeros: 2 rows of 18 above and below, a column on each side: 16 * (2*2*18 + 2*3) bytes.
    padded = load(y_size=3, x_size=16, x_stride=16, y_pad_0=2, y_pad_1=2, x_pad_0=1, x_pad_1=1)
    assert cycles(padded, timing) == 3 * (latency + 2 + 32) + 2 * (4 * 18 + 6)


def test_stores():
    assert cycles(Store(memory_type=Memory.OUT, dram_base=256, y_size=1, x_size=16)) == 3 * 16 + 2
    rows = Store(memory_type=Memory.OUT, dram_base=256, y_size=5, x_size=2, x_stride=7)
    assert cycles(rows) == 5 * (3 * 2 + 2)


@pytest.mark.parametrize("latency", LATENCIES)
def test_an_empty_program_and_the_fetch(latency):
    timing = replace(CLASSIC, read_latency=latency)
    assert profile(program(), CONFIG, timing).cycles == latency + 7
    # 300 instructions come in windows of 128, each fetched once the one before it is dispatched.
    many = profile(program(*[Load()] * 299), CONFIG, timing)
    first, second = (e.ready for e in many.events if e.index in (0, 128))
    assert first == latency + 2 + 2 * 128 + 1
    assert second == first - 1 + 128 + latency + 2 + 2 * 128 + 1


def test_two_launches_follow_each_other():
    one = program(Load())
    two = Program(one.dram, one.launches * 2)
    assert profile(two, CONFIG).cycles == 2 * profile(one, CONFIG).cycles


@pytest.mark.parametrize("timing", [CLASSIC, PIPELINED], ids=lambda t: t.name)
def test_two_contexts_hide_the_memory(timing):
    """Once the first load is in, GEMMs follow each other without a gap, whatever the latency."""
    work, _, _ = matrix_multiply_opt(512, 128, contexts=2, rounds=40)
    lone, _, _ = matrix_multiply_opt(512, 128, contexts=1, rounds=40)
    waits = {}
    for latency in LATENCIES:
        constants = replace(timing, read_latency=latency)
        for name, prog in (("two", work), ("one", lone)):
            (stream,) = prog.launches
            gemms = [
                e
                for e in profile(prog, CONFIG, constants).events
                if isinstance(stream[e.index], Gemm) and stream[e.index].pop_prev
            ]
            waits[name, latency] = sum(e.start - e.ready for e in gemms[2:])
    assert all(waits["two", latency] == 0 for latency in LATENCIES)
    assert all(waits["one", latency] > 0 for latency in LATENCIES)


def test_utilization_roofline_and_picture():
    work, _, _ = matrix_multiply_opt(512, 128)
    found = profile(work, CONFIG)
    roof = roofline(found, CONFIG)
    assert found.macs == 512 * 512
    # Weights are read once and are almost all of the traffic: two operations per byte.
    assert roof.intensity == pytest.approx(2, rel=0.02)
    assert roof.bound == "memory"
    assert roof.memory == 2 * found.macs / (found.bytes_read / 8)
    assert roof.peak == 2 * 256 / 4
    assert 0 < roof.share <= 1
    assert 0 < found.utilization(Stage.COMPUTE) < found.utilization(Stage.LOAD) <= 1
    svg = gantt(found, work)
    assert svg.count("<rect") >= len(found.events)
    assert "gemm uops=" in svg


def test_programs_that_never_end_are_errors():
    with pytest.raises(VtaError, match=r"deadlock: instruction 0 .* waits for a token in l2g"):
        profile(program(Gemm(uop_end=1, pop_prev=1)), CONFIG)
    with pytest.raises(VtaError, match="no FINISH"):
        profile(Program(np.zeros(4096, np.uint8), ((Load(),),)), CONFIG)


def test_requests_of_two_stages_share_one_channel():
    b = Builder(CONFIG)
    one = b.uops([Uop()])
    data = b.data(np.zeros(4096, np.int8))
    b.load(Memory.INP, data, cols=64)
    b.gemm(one, Loop(4, dst=1), reset=True)
    events = {e.index: e for e in profile(b.build(), CONFIG).events}
    # The micro-op load waits for the 128 beats of the input, or the other way round.
    spans = sorted((events[0].end, events[1].end))
    assert spans[1] - spans[0] >= min(16 + 2 + 1, 16 + 2 + 128)


def test_the_roof_of_a_program_that_stores_is_the_write_channel():
    gemm = Gemm(uop_end=1, iter_out=16, push_next=1)
    # Rows that overlap are moved as often as they are named.
    store = Store(
        memory_type=Memory.OUT, dram_base=256, y_size=8, x_size=100, pop_prev=1, push_prev=1
    )
    found = profile(program(gemm, store, Load(pop_next=1)), CONFIG)
    assert (found.bytes_read, found.bytes_written) == (0, 8 * 100 * 16)
    roof = roofline(found, CONFIG)
    assert roof.memory == 2 * found.macs / (3 * 800)
    assert 0 < roof.share <= 1


def test_what_still_waits_when_finish_has_run_is_left_out():
    left = Program(np.zeros(4096, np.uint8), ((Finish(), Load(pop_next=1)),))
    assert profile(left, CONFIG).cycles == profile(program(), CONFIG).cycles + 2


def test_a_range_that_ends_before_it_begins_is_no_work():
    found = profile(program(Gemm(uop_bgn=3, uop_end=1, iter_out=5)), CONFIG)
    assert found.macs == 0
    assert roofline(found, CONFIG).share == 0
