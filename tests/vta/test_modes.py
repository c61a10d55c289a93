"""What strict mode refuses, and how hardware differs from the original simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvmcomp.vta.builder import Builder, Loop
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import Program
from tvmcomp.vta.isa import (
    Alu,
    AluOp,
    Finish,
    Gemm,
    Load,
    Stage,
    Store,
    Uop,
    encode_uops,
    stage_of,
)
from tvmcomp.vta.machine import Mode
from tvmcomp.vta.simulate import simulate
from vta_model import SlowModel
from vta_workloads import CONFIG

ACC, OUT = 0x2000, 0x4000


ZERO = (Uop(),)


def machine_words(*stream, uops=ZERO, acc=None, config=CONFIG):
    """LOAD UOP, LOAD ACC of one page, `stream`, FINISH."""
    dram = np.zeros(8 * 4096, np.uint8)
    dram[0x1000 : 0x1000 + 4 * len(uops)] = encode_uops(uops, config).view(np.uint8)
    if acc is not None:
        dram[ACC : ACC + 4 * acc.size] = acc.astype("<i4").reshape(-1).view(np.uint8)
    first = Load(dram_base=0x400, y_size=1, x_size=len(uops), x_stride=1)
    second = Load(memory_type=Memory.ACC, dram_base=ACC // 64, y_size=1, x_size=8, x_stride=8)
    return Program(dram, ((first, second, *stream, Finish()),))


def acc_after(program, mode):
    result = simulate(program, CONFIG, mode=mode)
    assert result.error is None, result.error
    return result.machine.acc


SHR1 = Alu(alu_opcode=AluOp.SHR, use_imm=1, imm=1, uop_end=1)
STORE = Store(memory_type=Memory.OUT, dram_base=OUT // 16, y_size=1, x_size=1, x_stride=1)


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        (Finish(reserved=1 << 100), "bits that belong to no field"),
        (Alu(alu_opcode=AluOp.MUL, uop_end=1), "alu_opcode 4 is not in hardware"),
        (Alu(alu_opcode=AluOp.SHR, uop_end=1), "SHR by a tensor"),
        (replace(SHR1, imm=16), "the portable range is -15 to 15"),
        (replace(SHR1, imm=-16), "the portable range is -15 to 15"),
        (replace(SHR1, iter_in=0), "no iterations"),
        (replace(SHR1, uop_end=0), "no iterations"),
        (replace(SHR1, iter_in=2), "iterations 1 apart write ACC element 0"),
        (Load(memory_type=Memory.ACC_8BIT, dram_base=512, y_size=1, x_size=1), "ACC_8BIT exists"),
        (Load(memory_type=Memory.ACC, dram_base=128, x_size=1), "y_size is 0"),
        (
            Load(memory_type=Memory.ACC, dram_base=128, y_size=1, x_size=1, y_pad_0=1),
            "padding of anything but INP",
        ),
        (Load(dram_base=1024, y_size=2, x_size=1), "a UOP load of several rows"),
        (
            Load(memory_type=Memory.INP, push_prev=1, x_size=0),
            "push_prev names a queue that does not exist",
        ),
        (
            replace(SHR1, iter_in=3, uop_end=2),
            "iterations 2 apart write ACC element 0",
        ),
        (
            Alu(alu_opcode=AluOp.ADD, uop_end=1, iter_in=2, dst_factor_in=1, src_factor_in=0),
            "an ALU iteration reads what the one before it writes",
        ),
        (Gemm(uop_end=1, pop_next=0, reserved=1 << 63), "bits that belong to no field"),
        (Store(memory_type=Memory.OUT, dram_base=OUT // 16, x_size=1), "y_size is 0"),
        (replace(STORE, pop_next=1), "pop_next names a queue that does not exist"),
        (
            Load(memory_type=Memory.INP, dram_base=(1 << 28) + 256, y_size=1, x_size=1),
            "beyond 32 bits of address",
        ),
        (Finish(push_next=1), "FINISH carries tokens"),
        (STORE, "STORE of ACC element 0, which was last loaded or reset"),
        (Gemm(uop_end=1, iter_in=2, src_factor_in=1), "iterations 1 apart write ACC element 0"),
    ],
)
def test_strict_names_what_is_not_portable(instruction, reason):
    assert simulate(machine_words(SHR1), CONFIG, mode=Mode.STRICT).error is None
    # Its own queue first: no token holds FINISH back.
    start = stage_of(instruction)
    uops = (Uop(0), Uop(1))
    result = simulate(machine_words(instruction, uops=uops), CONFIG, mode=Mode.STRICT, start=start)
    assert "instruction 2" in result.error
    assert reason in result.error


def test_strict_refuses_alu_uops_with_a_weight_index():
    result = simulate(machine_words(SHR1, uops=(Uop(0, 0, 1),)), CONFIG, mode=Mode.STRICT)
    assert "wgt index" in result.error


def test_strict_refuses_tokens_that_are_left():
    result = simulate(machine_words(replace(SHR1, push_next=1)), CONFIG, mode=Mode.STRICT)
    assert "tokens are left: 1 in g2s" in result.error
    assert simulate(machine_words(replace(SHR1, push_next=1)), CONFIG).error is None


def test_hardware_stores_the_copy_that_gemm_and_alu_leave():
    acc = np.arange(8 * 16).reshape(8, 16)
    sync = replace(STORE, pop_prev=1, push_prev=1)
    wait = Load(pop_next=1)
    loaded = replace(SHR1, imm=0, push_next=1, dst_factor_in=1)
    written = simulate(
        machine_words(loaded, sync, wait, acc=acc), CONFIG, mode=Mode.HARDWARE, fill=9
    )
    assert written.dram[OUT : OUT + 16].tolist() == list(range(16))
    # The second tile was only loaded: the RTL stores what its copy held before.
    stale = replace(sync, sram_base=1)
    for mode, expected in ((Mode.HARDWARE, [9] * 16), (Mode.REFERENCE, list(range(16, 32)))):
        result = simulate(machine_words(loaded, stale, wait, acc=acc), CONFIG, mode=mode, fill=9)
        assert result.dram[OUT : OUT + 16].tolist() == expected


def test_a_reset_does_not_reach_the_copy():
    acc = np.full((8, 16), 5)
    touch = replace(SHR1, imm=0)
    reset = Gemm(reset=1, uop_end=1, push_next=1)
    store = replace(STORE, pop_prev=1, push_prev=1)
    program = machine_words(touch, reset, store, Load(pop_next=1), acc=acc)
    assert simulate(program, CONFIG, mode=Mode.HARDWARE).dram[OUT] == 5
    assert simulate(program, CONFIG).dram[OUT] == 0


def test_shifts_of_the_hardware():
    values = np.zeros((8, 16), np.int64)
    values[0], values[1] = -1000, -2
    program = machine_words(Alu(alu_opcode=AluOp.SHR, uop_end=1), uops=(Uop(0, 1),), acc=values)
    # A tensor of -2 is a left shift by 2 for the simulator; the RTL shifts right by its low five bits, 30.
    assert acc_after(program, Mode.REFERENCE)[0, 0] == -4000
    assert acc_after(program, Mode.HARDWARE)[0, 0] == -1000 >> 30
    # Its direction is that of the immediate, which the instruction says it does not use.
    left = machine_words(
        Alu(alu_opcode=AluOp.SHR, imm=-1, uop_end=1), uops=(Uop(0, 1),), acc=values
    )
    assert acc_after(left, Mode.HARDWARE)[0, 0] == -4000
    assert acc_after(left, Mode.REFERENCE)[0, 0] == -4000
    for imm, expected in ((-32, -1000), (33, -500), (-3, -8000), (5, -32)):
        program = machine_words(replace(SHR1, imm=imm), acc=values)
        assert acc_after(program, Mode.HARDWARE)[0, 0] == expected


def test_indices_wrap_around_in_hardware():
    acc = np.arange(8 * 16).reshape(8, 16)
    far = Alu(alu_opcode=AluOp.ADD, use_imm=1, imm=100, uop_end=1, iter_out=2, dst_factor_out=2047)
    program = machine_words(far, uops=(Uop(3),), acc=acc)
    after = acc_after(program, Mode.HARDWARE)
    assert after[3, 0] == 3 * 16 + 100
    assert after[2, 0] == 2 * 16 + 100
    assert "dst index 2050 reaches past the ACC depth 2048" in simulate(program, CONFIG).error


def test_indices_wrap_around_many_times():
    """More iterations than are written out at a time."""
    far = Alu(
        alu_opcode=AluOp.ADD, use_imm=1, imm=1, uop_end=1, iter_out=16383, iter_in=9,
        dst_factor_out=1, dst_factor_in=5,
    )  # fmt: skip
    program = machine_words(far, acc=np.zeros((8, 16)))
    simulated = simulate(program, CONFIG, mode=Mode.HARDWARE)
    times = np.arange(16383)[:, None] + 5 * np.arange(9)
    expected = np.bincount(times.reshape(-1) % 2048, minlength=2048)
    assert (simulated.machine.acc[:, 7] == expected).all()
    assert (simulated.machine.out == simulated.machine.acc.astype(np.int8)).all()


def test_shifts_by_every_amount_of_a_tensor_or_an_immediate():
    rng = np.random.default_rng(8)
    amounts = np.arange(-31, 32)
    for amount in amounts:
        acc = rng.integers(-(1 << 31), 1 << 31, (8, 16))
        acc[1] = rng.choice(amounts, 16)
        acc[1, 0] = amount
        tensor = machine_words(Alu(alu_opcode=AluOp.SHR, uop_end=1), uops=(Uop(0, 1),), acc=acc)
        expected = [SlowModel.lane(3, int(x), int(y)) for x, y in zip(acc[0], acc[1], strict=True)]
        assert acc_after(tensor, Mode.REFERENCE)[0].tolist() == expected
        immediate = machine_words(replace(SHR1, imm=int(amount)), acc=acc)
        expected = [SlowModel.lane(3, int(x), int(amount)) for x in acc[0]]
        assert acc_after(immediate, Mode.REFERENCE)[0].tolist() == expected


def test_strict_refuses_a_source_that_some_hardware_cannot_name():
    config = VtaConfig(log_inp_buff_size=14)
    add = Alu(alu_opcode=AluOp.ADD, uop_end=1)
    for source, error in ((1023, False), (1024, True)):
        program = machine_words(add, uops=(Uop(0, source),), config=config)
        result = simulate(program, config, mode=Mode.STRICT)
        assert ("reads it modulo 1024" in (result.error or "")) == error


@pytest.mark.parametrize(
    "instruction",
    [
        Alu(alu_opcode=AluOp.MUL, uop_end=1),
        Load(memory_type=Memory.ACC_8BIT, dram_base=512, y_size=1, x_size=1),
        Load(memory_type=Memory.ACC, dram_base=128, x_size=1),
        Store(memory_type=Memory.OUT, dram_base=OUT // 16, x_size=1),
        replace(SHR1, iter_in=0),
    ],
)
def test_what_hangs_the_hardware_is_an_error(instruction):
    start = stage_of(instruction)
    result = simulate(machine_words(instruction), CONFIG, mode=Mode.HARDWARE, start=start)
    assert "instruction 2" in result.error
    assert "hang" in result.error or "thousands" in result.error
    assert simulate(machine_words(instruction), CONFIG, start=start).error is None


def test_trailing_weight_padding_is_not_written_by_the_hardware():
    dram = np.ones(8 * 4096, np.uint8)
    load = Load(
        memory_type=Memory.WGT, dram_base=16, y_size=2, x_size=1, x_stride=1, y_pad_0=1, y_pad_1=1, x_pad_1=1,
        push_next=1,
    )  # fmt: skip
    program = Program(dram, ((load, Load(pop_prev=1), Finish()),))
    first = {
        mode: simulate(program, CONFIG, mode=mode, fill=7).machine.wgt[:8, 0, 0].tolist()
        for mode in (Mode.REFERENCE, Mode.HARDWARE)
    }
    assert first[Mode.REFERENCE] == [0, 0, 1, 0, 1, 0, 0, 0]
    assert first[Mode.HARDWARE] == [0, 0, 1, 0, 1, 7, 7, 7]


def test_counters_wrap_as_the_original_does():
    empty = Gemm(uop_bgn=1, uop_end=0)
    result = simulate(machine_words(empty, empty), CONFIG)
    assert result.counters.gemm_counter == (1 << 64) - 2


def test_sums_and_products_wrap_around():
    acc = np.full((8, 16), (1 << 31) - 1)
    for op, imm, expected in (
        (AluOp.ADD, 1, -(1 << 31)),
        (AluOp.MUL, 2, -2),
        (AluOp.MUL, -32768, -32768 * ((1 << 31) - 1) % (1 << 32)),
    ):
        program = machine_words(Alu(alu_opcode=op, use_imm=1, imm=imm, uop_end=1), acc=acc)
        wrapped = (expected + (1 << 31)) % (1 << 32) - (1 << 31)
        assert acc_after(program, Mode.REFERENCE)[0, 0] == wrapped


def test_state_lives_on_from_launch_to_launch():
    b = Builder(CONFIG)
    one = b.uops([Uop()])
    b.alu(AluOp.ADD, one, Loop(1), imm=3)
    program = b.build()
    twice = Program(program.dram, program.launches * 2)
    assert acc_after(twice, Mode.REFERENCE)[0, 0] == 6
    left = Program(program.dram, ((Load(push_prev=1), Finish()), program.launches[0]))
    assert simulate(left, CONFIG).tokens_left["g2l"] == 1


def test_every_configuration_has_a_batch_of_its_own():
    config = VtaConfig(2, 3, 15, 15, 14, 17)
    b = Builder(config)
    rng = np.random.default_rng(0)
    x, w = (
        rng.integers(-128, 128, (4, 8), dtype=np.int8),
        rng.integers(-128, 128, (8, 8), dtype=np.int8),
    )
    xa, wa = b.data(x), b.data(w)
    one = b.uops([Uop()])
    b.gemm(one, reset=True)
    b.load(Memory.INP, xa)
    b.load(Memory.WGT, wa)
    b.push(Stage.LOAD, Stage.COMPUTE)
    b.pop(Stage.LOAD, Stage.COMPUTE)
    b.gemm(one)
    result = simulate(b.build(), config)
    assert (result.machine.acc[0].reshape(4, 8) == x.astype(np.int32) @ w.T.astype(np.int32)).all()
