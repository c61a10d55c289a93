"""The command as a whole: output, exit codes, JSON alone on stdout."""

from __future__ import annotations

import json
import os
import pty
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tvmcomp
from cli.conftest import SOURCES, Done
from runtime import tiny
from tvmcomp.cli import main as command
from tvmcomp.cli.screen import Answer, Screen
from tvmcomp.cli.verb import add_verb, group
from tvmcomp.errors import (
    ArtifactError,
    IncompatibleHostError,
    ModelError,
    TvmcompError,
    UsageError,
    VerificationError,
)

Call = Callable[..., Done]

VERBS = (
    "bench",
    "bundle",
    "compile",
    "compress",
    "diff",
    "inspect",
    "quickstart",
    "run",
    "targets",
    "vta",
    "verify",
)

# A verb that prints to stdout in every way there is, and writes to no one's order.
NOISY = """
import ctypes, os, subprocess, sys
from tvmcomp.cli import main as command
from tvmcomp.cli.screen import Answer
from tvmcomp.cli.verb import add_verb, group

def noisy(screen):
    '''Makes noise.'''
    print("python")
    os.write(1, b"descriptor\\n")
    ctypes.CDLL(None).puts(b"native")
    ctypes.CDLL(None).fflush(None)
    subprocess.run(["echo", "child"], check=True)
    return Answer({"answer": 42}, lambda: print("forty-two"))

app = group("test")
add_verb(app, "noisy", noisy)
add_verb(app, "other", noisy)
command.app = app
sys.exit(command.main(sys.argv[1:]))
"""


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `tvmcomp fail` raise."""

    def fail(screen: Screen) -> Answer:
        """Fails."""
        raise error

    app = group("test")
    add_verb(app, "fail", fail)
    add_verb(app, "other", fail)
    monkeypatch.setattr(command, "app", app)


def test_help_lists_every_verb(call: Call) -> None:
    done = call("--help")
    assert done.code == 0
    listed = {line.split()[0] for line in done.out.partition("Commands:")[2].splitlines() if line}
    assert listed == set(VERBS)
    assert done.err == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(call: Call, verb: str) -> None:
    done = call(verb, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: tvmcomp {verb} ")
    if verb not in ("targets", "vta"):
        assert all(flag in done.out for flag in ("--json", "--quiet", "--traceback"))


def test_help_golden(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call("verify", "--help").out == (
        "Usage: tvmcomp verify [OPTIONS] {ARTIFACT}\n"
        "\n"
        "  Check an artifact and its test run.\n"
        "\n"
        "  Every byte, that this host can run it, and that its golden run repeats; exit\n"
        "  4 if not.\n"
        "\n"
        "Arguments:\n"
        "  ARTIFACT <path>  A .tvmcomp file made by `compile`.  [required]\n"
        "\n"
        "Options:\n"
        "  --json       Print exactly one JSON object on stdout.\n"
        "  --quiet      No progress and no warnings.\n"
        "  --traceback  Show where in the code an error came from.\n"
        "  -h, --help   Show this message and exit.\n"
    )


def test_help_is_quick_and_loads_no_compiler(spawn: Call) -> None:
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert spawn("--help").code == 0
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Time of the processor: the machine may be busy with other things.
    assert ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime < 0.4
    loaded = spawn(
        code="import sys, tvmcomp.cli.main as m; code = m.main(['--help']); "
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    ).err.split()
    assert "tvmcomp.cli.main" in loaded
    assert not {"tvm", "tvm_ffi", "torch", "numpy", "onnx", "rich"} & set(loaded)


def test_running_and_checking_load_no_compiler(spawn: Call, artifact: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **tiny.inputs(0))
    commands = [
        ["targets", "detect"],
        ["verify", str(artifact)],
        ["inspect", str(artifact), "--kernels"],
        ["run", str(artifact), "-i", str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz")],
    ]
    probe = (
        "import json, sys; from tvmcomp.cli.main import main\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    assert main(command) == 0, command\n"
        "    assert not {'tvm', 'torch', 'onnx'} & set(sys.modules), command"
    )
    done = spawn(json.dumps(commands), code=probe)
    assert (done.code, done.err) == (0, "")


def test_version(call: Call) -> None:
    assert call("--version").out == f"tvmcomp {tvmcomp.__version__}\n"


def test_alone_it_prints_help(call: Call) -> None:
    assert call().out == call("--help").out
    assert call("targets").out == call("targets", "--help").out


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TvmcompError("plain"), 3, "plain"),
        (UsageError("a and b"), 2, "a and b"),
        (ModelError("node 'x':\n  is odd"), 3, "node 'x': is odd"),
        (ArtifactError("damaged"), 4, "damaged"),
        (VerificationError("differs"), 4, "differs"),
        (IncompatibleHostError("no avx"), 5, "no avx"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(32, "Broken pipe"), 1, "bug in tvmcomp: BrokenPipeError: [Errno 32] Broken pipe"),
        (RuntimeError("boom\nat line 3"), 1, "bug in tvmcomp: RuntimeError: boom at line 3"),
        (AssertionError(), 1, "bug in tvmcomp: AssertionError:"),
        (ModuleNotFoundError("x", name="tvm.relax"), 5, "this needs tvm, which is not installed"),
        (ModuleNotFoundError("x", name="ours"), 1, "bug in tvmcomp: ModuleNotFoundError: x"),
        (PermissionError(13, "Permission denied", "/x"), 3, "/x: Permission denied"),
        (OSError(28, "No space left on device"), 3, "No space left on device"),
        (OSError(9, "Bad file descriptor"), 1, "bug in tvmcomp: OSError: [Errno 9] Bad file descriptor"),
        (MemoryError(), 5, "out of memory; use a machine with more of it"),
        (TvmcompError("red \x1b[31m name"), 3, "red ?[31m name"),
    ],
)  # fmt: skip
def test_every_error_is_one_line_with_its_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    raising(error, monkeypatch)
    done = call("fail")
    assert done.failed(code) == line
    assert done.out == ""


def test_error_as_json_is_one_object(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ModelError("bad")
    error.add_note("did you mean good?")
    raising(error, monkeypatch)
    done = call("fail", "--json")
    assert done.json == {
        "schema": 1,
        "error": {"message": "bad", "exit_code": 3, "hints": ["did you mean good?"]},
    }
    assert done.failed(3) == "bad"
    assert "hint: did you mean good?" in done.err


def test_traceback_only_on_request(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(ModelError("bad"), monkeypatch)
    assert "Traceback" not in call("fail").err
    asked = call("fail", "--traceback")
    assert asked.code == 3
    assert "Traceback" in asked.err
    assert "ModelError: bad" in asked.err
    assert asked.err.endswith("error: bad\n")


def test_a_bug_says_how_to_report_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(ZeroDivisionError("0"), monkeypatch)
    assert "hint: run it again with --traceback and report what that prints" in call("fail").err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compille", "x"), "Did you mean 'compile'"),
        (("verify",), "Missing argument 'ARTIFACT'"),
        (("verify", "a", "b"), "unexpected extra argument"),
        (("verify", "a", "--jsn"), "--json"),
        (("run", "a", "-i", "b", "-o", "c", "--threads", "0"), "--threads"),
        (("compile", "a.onnx"), "--output"),
    ],
)
def test_usage_errors(call: Call, arguments: tuple[str, ...], words: str) -> None:
    done = call(*arguments)
    assert words in done.failed(2)
    assert "hint: see tvmcomp" in done.err
    assert call(*arguments, "--json").json["error"]["exit_code"] == 2


def test_missed_gate(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(screen: Screen) -> Answer:
        """Is slow."""
        return Answer({"ms": 2.0}, lambda: print("2 ms"), missed="2 ms is more than 1 ms")

    app = group("test")
    add_verb(app, "slow", slow)
    add_verb(app, "other", slow)
    monkeypatch.setattr(command, "app", app)
    done = call("slow")
    assert (done.code, done.out) == (7, "2 ms\n")
    assert done.failed(7) == "2 ms is more than 1 ms"
    assert call("slow", "--json").json == {"schema": 1, "ms": 2.0}


def test_json_is_alone_on_stdout(spawn: Call) -> None:
    done = spawn("noisy", "--json", code=NOISY)
    assert done.code == 0, done.err
    assert done.json == {"schema": 1, "answer": 42}
    assert {"python", "descriptor", "native", "child"} <= set(done.err.split())
    plain = spawn("noisy", code=NOISY)
    assert "forty-two" in plain.out
    assert plain.err == ""


def test_a_figure_json_has_no_word_for_is_a_bug_and_not_half_an_object(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(screen: Screen) -> Answer:
        """Is odd."""
        return Answer({"ms": float("nan")}, lambda: None)

    app = group("test")
    add_verb(app, "odd", odd)
    add_verb(app, "other", odd)
    monkeypatch.setattr(command, "app", app)
    assert call("odd", "--json").json["error"]["exit_code"] == 1


def test_warnings_are_lines_and_quiet_has_none(spawn: Call) -> None:
    code = NOISY.replace('print("python")', 'import warnings; warnings.warn_explicit("odd\\ndata", '
                         'UserWarning, "f", 1, module="tvmcomp.x"); '
                         'warnings.warn("theirs")')  # fmt: skip
    assert spawn("noisy", "--json", code=code).err.splitlines()[0] == "warning: odd data"
    assert "theirs" not in spawn("noisy", code=code).err
    assert "warning" not in spawn("noisy", "--quiet", code=code).err


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_reader_that_leaves_is_no_error(artifact: Path, flags: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "tvmcomp", "inspect", str(artifact), *flags],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_knows_verbs_and_targets(spawn: Call) -> None:
    def complete(words: str) -> str:
        return spawn(
            _TVMCOMP_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
        ).out

    assert complete("tvmcomp comp").split() == ["compress", "compile"]
    assert "x86-avx2" in complete("tvmcomp compile m.onnx --target x86").split()


@pytest.mark.parametrize(
    ("flags", "environment", "shown"),
    [((), {}, True), (("--quiet",), {}, False), ((), {"NO_COLOR": "1"}, True)],
)
def test_progress_is_for_terminals(
    artifact: Path, flags: tuple[str, ...], environment: dict[str, str], shown: bool
) -> None:
    leader, follower = pty.openpty()
    base = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    done = subprocess.run(
        [sys.executable, "-m", "tvmcomp", "verify", str(artifact), *flags],
        env={**base, "PYTHONPATH": str(SOURCES), "TERM": "xterm-256color", **environment},
        stdout=subprocess.PIPE,
        stderr=follower,
        timeout=60,
        check=True,
    )
    os.close(follower)
    try:
        seen = os.read(leader, 1 << 16)
    except OSError:
        seen = b""  # Linux: nothing was written and nobody holds the other end.
    os.close(leader)
    assert (b"verify" in seen) == shown
    assert b"ETA" in seen or not shown
    coloured = b"\x1b[3" in seen
    assert coloured == (shown and not environment)
    assert done.stdout.startswith(b"verified ")
