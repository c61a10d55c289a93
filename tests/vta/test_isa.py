"""Instruction layout and binary form against the specification's tables."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tvmcomp.errors import VtaError
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.isa import (
    Alu,
    Finish,
    Gemm,
    Illegal,
    Load,
    Store,
    Uop,
    decode,
    decode_uops,
    encode,
    encode_uops,
)
from tvmcomp.vta.layout import ALU, GEMM, LOAD, UOP

# Section 3.5: log2 sizes -> depths (lu, li, lw, la) and first bit (and width) of each field.
SIZES = {
    (0, 4, 15, 15, 18, 17): (
        (13, 11, 10, 11), (21, 14), 35, 49, (64, 11), 75, (86, 11), 97, (108, 10), 118, 108, 111, 112),
    (0, 4, 11, 13, 15, 15): (
        (9, 9, 7, 9), (17, 10), 27, 41, (55, 9), 64, (73, 9), 82, (91, 7), 98, 91, 94, 95),
    (1, 4, 15, 15, 18, 17): (
        (13, 10, 10, 10), (21, 14), 35, 49, (64, 10), 74, (84, 10), 94, (104, 10), 114, 104, 107, 108),
    (0, 5, 15, 16, 19, 18): (
        (13, 11, 9, 11), (21, 14), 35, 49, (64, 11), 75, (86, 11), 97, (108, 9), 117, 108, 111, 112),
    (2, 3, 15, 15, 14, 17): (
        (13, 10, 8, 10), (21, 14), 35, 49, (64, 10), 74, (84, 10), 94, (104, 8), 112, 104, 107, 108),
}  # fmt: skip
CONFIGS = [VtaConfig(*sizes) for sizes in SIZES]

# Section 3.6.
WORKED = {
    "00000000300000000100010001000000": Load(dram_base=0xC00, y_size=1, x_size=1, x_stride=1),
    "a2002000800002000100000000000000": Gemm(
        reset=1, push_prev=1, uop_end=1, iter_out=16, iter_in=1, dst_factor_out=1
    ),
    "10010000040000000100100010000000": Load(
        memory_type=Memory.INP, pop_next=1, dram_base=0x100, y_size=1, x_size=16, x_stride=16
    ),
    "c0000080000000000100010001000000": Load(
        memory_type=Memory.WGT, push_next=1, dram_base=0x20, y_size=1, x_size=1, x_stride=1
    ),
    "4a002000800002000100400000000000": Gemm(
        pop_prev=1, push_next=1, uop_end=1, iter_out=16, dst_factor_out=1, src_factor_out=1
    ),
    "29020000100000000100100010000000": Store(
        memory_type=Memory.OUT, pop_prev=1, push_prev=1, dram_base=0x400, y_size=1, x_size=16, x_stride=16
    ),
    "10000000000000000000000000000000": Load(pop_next=1),
    "03000000000000000000000000000000": Finish(),
}  # fmt: skip


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_fields_stand_where_the_specification_has_them(sizes):
    config = VtaConfig(*sizes)
    depths, uop_end, iter_out, iter_in, dst_out, dst_in, src_out, src_in, *rest = SIZES[sizes]
    wgt_out, wgt_in, alu_op, use_imm, imm = rest
    assert depths == tuple(
        config.log_depth(m) for m in (Memory.UOP, Memory.INP, Memory.WGT, Memory.ACC)
    )
    gemm, alu = (config.layouts[kind].fields for kind in (GEMM, ALU))
    at = {name: field.bit for name, field in gemm.items()}
    assert (gemm["uop_end"].bit, gemm["uop_end"].width) == uop_end
    assert (at["iter_out"], at["iter_in"]) == (iter_out, iter_in)
    assert (gemm["dst_factor_out"].bit, gemm["dst_factor_out"].width) == dst_out
    assert at["dst_factor_in"] == dst_in
    assert (gemm["src_factor_out"].bit, gemm["src_factor_out"].width) == src_out
    assert at["src_factor_in"] == src_in
    assert (gemm["wgt_factor_out"].bit, gemm["wgt_factor_out"].width) == wgt_out
    assert at["wgt_factor_in"] == wgt_in
    assert [alu[n].bit for n in ("alu_opcode", "use_imm", "imm")] == [alu_op, use_imm, imm]


def test_memory_instructions_and_uops_of_the_default_configuration():
    fields = VtaConfig().layouts[LOAD].fields
    assert {name: (f.bit, f.width) for name, f in fields.items()} == {
        "opcode": (0, 3), "pop_prev": (3, 1), "pop_next": (4, 1), "push_prev": (5, 1),
        "push_next": (6, 1), "memory_type": (7, 3), "sram_base": (10, 16), "dram_base": (26, 32),
        "y_size": (64, 16), "x_size": (80, 16), "x_stride": (96, 16), "y_pad_0": (112, 4),
        "y_pad_1": (116, 4), "x_pad_0": (120, 4), "x_pad_1": (124, 4),
    }  # fmt: skip
    uop = VtaConfig().layouts[UOP].fields
    assert {n: (f.bit, f.width) for n, f in uop.items()} == {
        "dst": (0, 11),
        "src": (11, 11),
        "wgt": (22, 10),
    }


@pytest.mark.parametrize("data", WORKED)
def test_worked_example(data):
    assert encode(WORKED[data], VtaConfig()).hex() == data
    assert decode(bytes.fromhex(data), VtaConfig()) == WORKED[data]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_every_instruction_survives_the_round_trip(config):
    rng = np.random.default_rng(3)
    for kind in (Load, Store, Gemm, Alu, Finish):
        for _ in range(100):
            values = {
                name: int(rng.integers(field.low, field.high + 1))
                for name, field in config.layouts[kind.opcode].fields.items()
                if name != "opcode"
            }
            instruction = kind(**values)
            assert decode(encode(instruction, config), config) == instruction
    words = rng.integers(0, 1 << 32, 100, dtype=np.uint32)
    used = sum(field.width for field in config.layouts[UOP].fields.values())
    uops = [Uop(*row) for row in decode_uops(words, config).tolist()]
    assert (encode_uops(uops, config) == words & ((1 << used) - 1)).all()


@pytest.mark.parametrize("word", [5, 6, 7 | 1 << 100])
def test_an_opcode_that_does_not_exist_is_kept_and_named(word):
    instruction = decode(word.to_bytes(16, "little"), VtaConfig())
    assert isinstance(instruction, Illegal)
    assert f"opcode {word & 7} does not exist" in instruction.reason
    assert encode(instruction, VtaConfig()) == word.to_bytes(16, "little")


def test_reserved_bits_survive_and_may_not_overlap_a_field():
    finish = decode((3 | 1 << 90).to_bytes(16, "little"), VtaConfig())
    assert finish == Finish(reserved=1 << 90)
    assert int.from_bytes(encode(finish, VtaConfig()), "little") == 3 | 1 << 90
    with pytest.raises(VtaError, match="overlaps a field"):
        encode(dataclasses.replace(finish, reserved=1 << 4), VtaConfig())


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        (Load(sram_base=1 << 16), "LOAD: sram_base is 65536; its 16 bits hold 0 to 65535"),
        (Gemm(dst_factor_in=-1), "GEMM: dst_factor_in is -1; its 11 bits hold 0 to 2047"),
        (Alu(imm=32768), "ALU: imm is 32768; its 16 bits hold -32768 to 32767"),
        (Store(x_pad_1=16), "STORE: x_pad_1 is 16; its 4 bits hold 0 to 15"),
    ],
)
def test_a_field_that_overflows_is_an_error(instruction, message):
    with pytest.raises(VtaError, match=message):
        encode(instruction, VtaConfig())


def test_a_micro_op_that_overflows_is_an_error():
    with pytest.raises(VtaError, match="micro-op: wgt is 1024; its 10 bits hold 0 to 1023"):
        encode_uops([Uop(0, 0, 1024)], VtaConfig())
