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
        ("load.inp x=" + "9" * 5000, "is not a number"),
        ("load.\u0663 x=1", "use one of .uop, .wgt"),
        ("load.9 x=1", "memory_type is 9; its 3 bits hold 0 to 7"),
        ("load.inp pad=1,2", "write pad=N,N,N,N"),
        ("load.inp x=1 x=2", "a second time"),
        ("finish now", "neither key=value nor a flag"),
        ("word 0x1" + "0" * 40, "does not fit 128 bits"),
        (".hex 0x1000 0g", "pairs of hexadecimal digits"),
        (".i8 0x1000 200", "200 is outside -128 to 127"),
        (".i8 0x4fff 1 2", "DRAM at 0x5000"),
        (".file 0x1000 ../secret", "not beside the program"),
        (".file 0x1000 nowhere", "no such file beside the program"),
        (".uop 0x1000 1,2", "write dst,src,wgt"),
        (".i8 0x1000", "takes an address and what to put there"),
        (".file 0x1000 .", "not beside the program"),
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


def test_decimal_numbers_may_begin_with_zeros(tmp_path, capsys):
    text = tmp_path / "p.vta"
    text.write_text(".dram 0x5000\n.launch\nload.inp dram=0256 y=01 x=010\nfinish\n")
    assert run(capsys, "asm", text, "-o", tmp_path / "p")[0] == 0
    load = read_program(tmp_path / "p", CONFIG).launches[0][0]
    assert (load.dram_base, load.x_size) == (256, 10)


@pytest.mark.parametrize(
    "argv",
    [
        ("run", "p.bin", "p.bin", "s"),
        ("run", "p.bin", "o", "./o"),
        ("run", "p.bin", "o", "s", "--sram", "s"),
        ("disasm", "p.bin", "-o", "p.bin"),
        ("asm", "p.bin", "-o", "p.bin"),
        ("profile", "p.bin", "--svg", "link"),
        ("run", "p.bin", "c.json", "s", "--config", "c.json"),
    ],
    ids=" ".join,
)
def test_one_name_for_two_files_is_refused_before_anything_is_lost(
    argv, multiply, capsys, monkeypatch
):
    monkeypatch.chdir(multiply.parent)
    (multiply.parent / "link").symlink_to(multiply)
    before = multiply.read_bytes()
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert "is named twice" in err
    assert multiply.read_bytes() == before
    assert sorted(path.name for path in multiply.parent.iterdir()) == ["link", "p.bin"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("run", ".", "o", "s"), ".: cannot be read: Is a directory"),
        (("run", "p.bin", "no/o", "s"), "no/o: cannot be written: No such file or directory"),
        (("run", "p.bin", ".", "s"), ".: cannot be written: Is a directory"),
        (("run", "p.bin", "o", "."), ".: cannot be written: Is a directory"),
        (("run", "p.bin", "/dev/full", "s"), "/dev/full: cannot be written: No space left"),
        (("run", "/dev/zero", "o", "s"), "it is no program container"),
        (("run", "p.vta", "o", "s"), "it is no program container"),
        (("asm", "p.bin", "-o", "q"), "is not text"),
        (("asm", ".", "-o", "q"), "Is a directory"),
        (("asm", "p.vta", "-o", "."), ".: cannot be written"),
        (("disasm", "p.bin", "-o", "."), ".: cannot be written"),
        (("profile", "p.bin", "--svg", "."), ".: cannot be written"),
        (("profile", "p.bin", "--config", "."), ".: cannot be read"),
        (("check", "empty"), "it is cut off"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_files_that_cannot_be_read_or_written(argv, message, multiply, capsys, monkeypatch):
    monkeypatch.chdir(multiply.parent)
    folder = multiply.parent
    (folder / "p.vta").write_text(".dram 0x5000\n.launch\nfinish\n")
    (folder / "empty").touch()
    if argv[0] == "asm":
        multiply.write_bytes(b"\xff" + multiply.read_bytes())
    code, _, err = run(capsys, *argv)
    assert (code, len(err.strip().splitlines())) == (3, 1)
    assert message in err
    assert not list(folder.glob(".*.tmp"))


def test_devices_are_written_to_not_replaced(multiply, capsys):
    assert run(capsys, "run", multiply, "/dev/null", "/dev/null")[0] == 0


@pytest.mark.parametrize(
    "argv", [("--fill", 300), ("--fill", -1), ("--limit", -1), ("--start", "b")]
)
def test_options_out_of_range(argv, multiply, tmp_path, capsys):
    code, _, err = run(capsys, "run", multiply, tmp_path / "o", tmp_path / "s", *argv)
    assert code == 2
    assert argv[0] in err
    assert not (tmp_path / "o").exists()


def test_statistics_are_written_when_cycles_cannot_be_counted(tmp_path, capsys):
    """The load that FINISH does not wait for is fine if its queue starts; the cycle model agrees on the end."""
    text, stats = tmp_path / "p.vta", tmp_path / "s"
    text.write_text(".dram 0x5000\n.launch\nfinish\nload.uop pop_next\n")
    run(capsys, "asm", text, "-o", tmp_path / "p")
    code, _, _ = run(capsys, "run", tmp_path / "p", tmp_path / "o", stats, "--timing", "classic")
    data = json.loads(stats.read_text())
    assert (code, data["error"], data["insns_left"]) == (0, None, 1)
    assert data["cycles"] == 16 + 7 + 2


def test_a_limit_of_ones_own(multiply, tmp_path, capsys):
    stats = tmp_path / "s"
    code, _, err = run(capsys, "run", multiply, tmp_path / "o", stats, "--limit", 19)
    assert code == 3
    assert "20 iterations of GEMM and ALU so far, more than the limit of 19" in err
    assert json.loads(stats.read_text())["gemm_counter"] < 17
    assert run(capsys, "run", multiply, tmp_path / "o", stats, "--limit", 20)[0] == 0


def test_fill_reaches_every_memory(tmp_path, capsys):
    text, sram = tmp_path / "p.vta", tmp_path / "sram"
    text.write_text(".dram 0x1000\n.launch\nfinish\n")
    run(capsys, "asm", text, "-o", tmp_path / "p")
    files = [tmp_path / name for name in ("p", "o", "s")]
    assert run(capsys, "run", *files, "--fill", 171, "--sram", sram)[0] == 0
    assert sram.read_bytes() == bytes([171]) * sram.stat().st_size


def test_a_result_that_depends_on_the_queue_that_starts_is_an_error(tmp_path, capsys):
    text, stats = tmp_path / "p.vta", tmp_path / "s"
    text.write_text(
        ".dram 0x5000\n.i32 0x2000 7\n.launch\n"
        "load.acc dram=0x80 y=1 x=1\nstore.out dram=0x400 y=1 x=1 push_prev\nload.uop pop_next\nfinish\n"
    )
    run(capsys, "asm", text, "-o", tmp_path / "p")
    argv = ("run", tmp_path / "p", tmp_path / "o", stats)
    assert run(capsys, *argv)[0] == 0
    code, _, err = run(capsys, *argv, "--start", "all")
    assert code == 3
    assert "depends on which queue starts" in err
    assert json.loads(stats.read_text())["error"] in err
