"""Ctrl-C at any moment: one line, exit code 130, and nothing once all is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

from cli.conftest import SOURCES, Done

Call = Callable[..., Done]

WAITING = """
import sys, time
from tvmcomp.__main__ import run
from tvmcomp.cli import main as command
from tvmcomp.cli.verb import add_verb, group

def wait(screen):
    '''Waits.'''
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)

app = group("test")
add_verb(app, "wait", wait)
add_verb(app, "other", wait)
command.app = app
run()
"""


def test_interrupt_ends_with_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, "wait", "--json"],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a script inherits SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "error: interrupted\n"
    assert json.loads(out)["error"]["exit_code"] == 130


# An interrupt while the command itself is imported, and one when everything is done.
EARLY = """
import sys
from tvmcomp.__main__ import run

class Interrupting:
    def find_spec(self, name, *_):
        if name == "tvmcomp.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
run()
"""
LATE = """
import atexit, os, signal
from tvmcomp.__main__ import run

signal.signal(signal.SIGINT, signal.SIG_DFL)
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
run()
"""


def test_an_interrupt_before_the_first_line_and_after_the_last(spawn: Call) -> None:
    assert spawn(code=EARLY).failed(130) == "interrupted"
    done = spawn("--version", code=LATE)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("tvmcomp ")
