"""`tvmcomp vta`: files in, files out, and one line for each that is wrong."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from tvmcomp.cli.main import main
from tvmcomp.vta.container import Program, read_program, write_program
from tvmcomp.vta.isa import Alu, AluOp, Finish, Gemm, Illegal, Load, Store
from vta_workloads import CONFIG, matrix_multiply


@pytest.fixture
def multiply(tmp_path):
    program, _, _ = matrix_multiply(64)
    write_program(program, tmp_path / "p.bin", CONFIG)
    return tmp_path / "p.bin"


def run(capsys, *argv):
    code = main(["vta", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def test_text_and_container_are_the_same_program(multiply, tmp_path, capsys):
    text, again = tmp_path / "p.vta", tmp_path / "q.bin"
    assert run(capsys, "disasm", multiply, "-o", text)[0] == 0
    assert run(capsys, "asm", text, "-o", again)[0] == 0
    assert again.read_bytes() == multiply.read_bytes()


def test_run_writes_memory_counters_and_cycles(multiply, tmp_path, capsys):
    out, stats, sram = (tmp_path / name for name in ("out", "stats", "sram"))
    code, text, _ = run(
        capsys, "run", multiply, out, stats, "--start", "all", "--sram", sram, "--timing",
        "pipelined", "--read-latency", 3, "--json",
    )  # fmt: skip
    assert code == 0
    data = json.loads(stats.read_text())
    assert data["gemm_counter"] == 16
    assert data["error"] is None
    assert data["cycles"] > 0
    assert json.loads(text)["cycles"] == data["cycles"]
    _, address, expected = matrix_multiply(64)
    memory = np.fromfile(out, np.int8)
    assert not memory[:4096].any()
    assert (memory[address : address + 64] == expected).all()
    assert sram.stat().st_size == (1 << 15) + (1 << 18) + (1 << 15) + (1 << 17)


def broken(change):
    program, _, _ = matrix_multiply(64)
    return Program(program.dram, (tuple(change(list(program.launches[0]))),))


def find(stream, kind, **fields):
    return next(
        i
        for i, ins in enumerate(stream)
        if isinstance(ins, kind) and all(getattr(ins, k) == v for k, v in fields.items())
    )


def missing_token(stream):
    index = find(stream, Load, push_next=1)
    return [*stream[:index], replace(stream[index], push_next=0), *stream[index + 1 :]]


def early_finish(stream):
    return [Finish(), *stream]


def bad_opcode(stream):
    return [stream[0], Illegal(6), *stream[1:]]


def wrapped_address(stream):
    index = find(stream, Load, memory_type=1)
    return [
        *stream[:index],
        replace(stream[index], dram_base=(1 << 24) + stream[index].dram_base + (1 << 20)),
        *stream[index + 1 :],
    ]


def past_the_memory(stream):
    index = find(stream, Gemm, reset=0)
    return [*stream[:index], replace(stream[index], dst_factor_out=700), *stream[index + 1 :]]


def page_zero(stream):
    index = find(stream, Store)
    return [*stream[:index], replace(stream[index], dram_base=3), *stream[index + 1 :]]


def far_shift(stream):
    shift = Alu(alu_opcode=AluOp.SHR, use_imm=1, imm=40, uop_end=1)
    index = find(stream, Store)
    return [*stream[:index], shift, *stream[index:]]


BROKEN = {
    missing_token: "deadlock: instruction",
    early_finish: "runs after FINISH, instruction 0",
    bad_opcode: "instruction 1 (word 0x6): opcode 6 does not exist",
    wrapped_address: "the image ends at",
    past_the_memory: "dst index",
    page_zero: "is in page 0, which is not mapped",
    far_shift: "SHR by more than 31 is undefined",
}


@pytest.mark.parametrize("change", BROKEN, ids=lambda c: c.__name__)
def test_a_broken_stream_is_named_in_one_line_and_in_the_statistics(change, tmp_path, capsys):
    file, stats = tmp_path / "p.bin", tmp_path / "stats"
    write_program(broken(change), file, CONFIG)
    code, _, err = run(capsys, "run", file, tmp_path / "out", stats)
    assert code == 3
    assert len(err.strip().splitlines()) == 1
    assert BROKEN[change] in err
    assert BROKEN[change] in json.loads(stats.read_text())["error"]


@pytest.mark.parametrize(
    "change", [missing_token, early_finish, bad_opcode], ids=lambda c: c.__name__
)
def test_check_names_it_too(change, tmp_path, capsys):
    file = tmp_path / "p.bin"
    write_program(broken(change), file, CONFIG)
    code, _, err = run(capsys, "check", file)
    assert code == 3
    assert "instruction" in err


def header(path, **changes):
    data = bytearray(path.read_bytes())
    magic, dram, launches = struct.unpack_from("<8sQI", data)
    values = {"magic": magic, "dram": dram, "launches": launches} | changes
    struct.pack_into("<8sQI", data, 0, values["magic"], values["dram"], values["launches"])
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:10]), "it is cut off"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "its header counts"),
        (lambda p: p.write_bytes(p.read_bytes() + b"\0"), "its header counts"),
        (lambda p: header(p, magic=b"ELF\0\0\0\0\0"), "it is no program container"),
        (lambda p: header(p, dram=4097), "it takes whole pages"),
        (lambda p: header(p, dram=1 << 40), "it takes whole pages"),
        (lambda p: header(p, launches=1 << 31), "need at least"),
        (lambda p: p.unlink(), "cannot be read"),
    ],
)
def test_a_damaged_container_is_refused(damage, message, multiply, tmp_path, capsys):
    damage(multiply)
    for argv in (["run", multiply, tmp_path / "o", tmp_path / "s"], ["check", multiply]):
        code, _, err = run(capsys, *argv)
        assert (code, len(err.strip().splitlines())) == (3, 1)
        assert message in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gemm uops=0:1 dst=4096,0", "dst_factor_out is 4096; its 11 bits hold 0 to 2047"),
        ("gem uops=0:1", "unknown instruction 'gem'"),
        ("load.foo x=1", "use one of .uop, .wgt"),
        ("load.inp z=1", "load has no 'z'"),
        ("load.inp x=one", "x: 'one' is not a number"),
        ("load.inp pad=1,2", "write pad=N,N,N,N"),
        ("load.inp x=1 x=2", "a second time"),
        ("finish now", "neither key=value nor a flag"),
        ("word 0x1" + "0" * 40, "does not fit 128 bits"),
        (".hex 0x1000 0g", "pairs of hexadecimal digits"),
        (".i8 0x1000 200", "200 is outside -128 to 127"),
        (".i8 0x4fff 1 2", "DRAM at 0x5000"),
        (".file 0x1000 ../secret", "not beside the program"),
        (".file 0x1000 nowhere", "cannot be read"),
        (".uop 0x1000 1,2", "write dst,src,wgt"),
        (".foo", "unknown directive"),
    ],
)
def test_assembler_errors_name_the_line(line, message, tmp_path, capsys):
    text = tmp_path / "p.vta"
    text.write_text(f".dram 0x5000\n.launch\n{line}\nfinish\n")
    code, _, err = run(capsys, "asm", text, "-o", tmp_path / "p.bin")
    assert code == 3
    assert "line 3: " in err
    assert message in err
    assert not (tmp_path / "p.bin").exists()


def test_a_configuration_of_ones_own(tmp_path, capsys):
    config, text = tmp_path / "c.json", tmp_path / "p.vta"
    sizes = {"LOG_INP_BUFF_SIZE": 16, "LOG_WGT_BUFF_SIZE": 19, "LOG_ACC_BUFF_SIZE": 18}
    config.write_text(json.dumps({"LOG_BLOCK": 5, **sizes}))
    text.write_text(".dram 0x2000\n.launch\nfinish\n")
    assert run(capsys, "asm", text, "-o", tmp_path / "p", "--config", config)[0] == 0
    stats = tmp_path / "s"
    assert run(capsys, "run", tmp_path / "p", tmp_path / "o", stats, "--config", config)[0] == 0
    config.write_text(json.dumps({"LOG_BLOCK": 9}))
    assert run(capsys, "check", tmp_path / "p", "--config", config)[0] == 3


def test_disassembly_keeps_reserved_bits_and_illegal_words(tmp_path, capsys):
    stream = (
        Illegal(7 | 5 << 90),
        Finish(reserved=1 << 70),
        Alu(imm=-3, alu_opcode=6),
        Load(memory_type=7),
    )
    program = Program(np.zeros(4096, np.uint8), (stream, ()))
    write_program(program, tmp_path / "p", CONFIG)
    run(capsys, "disasm", tmp_path / "p", "-o", tmp_path / "t")
    assert run(capsys, "asm", tmp_path / "t", "-o", tmp_path / "q")[0] == 0
    assert read_program(tmp_path / "q", CONFIG).launches == program.launches
