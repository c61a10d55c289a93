"""The `tvmcomp` command: runs a verb, turns what it answers or raises into output and an exit code."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from typing import Annotated, TextIO

import typer

from tvmcomp import __version__
from tvmcomp.cli import (
    bench,
    bundle,
    compile,
    compress,
    diff,
    inspect,
    quickstart,
    targets,
    verify,
    vta,
)
from tvmcomp.cli import run as run_verb
from tvmcomp.cli.failure import Failure, failure_of, one_line
from tvmcomp.cli.screen import Answer
from tvmcomp.cli.verb import JSON_FLAG, QUIET_FLAG, TRACEBACK_FLAG, add_verb, group

__all__ = ["app", "main"]

SCHEMA = 1
INTERRUPTED = 130

_STDOUT, _STDERR = 1, 2

app = group(
    "Compress a trained model, compile it for one described device, ship it as one measured file.\n\n"
    "tvmcomp VERB MODEL_OR_ARTIFACT [options]. Exit codes: 0 ok, 1 bug, 2 usage, 3 bad input, "
    "4 verification failed, 5 incompatible host, 6 device, 7 gate missed, 130 interrupted."
)
app.add_typer(targets.app, name="targets")
app.add_typer(vta.app, name="vta")
for _name, _verb in (
    ("compress", compress.compress),
    ("compile", compile.compile),
    ("run", run_verb.run),
    ("bench", bench.bench),
    ("inspect", inspect.inspect),
    ("verify", verify.verify),
    ("diff", diff.diff),
    ("bundle", bundle.bundle),
    ("quickstart", quickstart.quickstart),
):
    add_verb(app, _name, _verb)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"tvmcomp {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit code, whatever happens inside."""
    as_json = JSON_FLAG in argv
    with _stdout_for_result(as_json) as out:
        try:
            with _warnings_as_lines(quiet=QUIET_FLAG in argv):
                answer = app(list(argv), prog_name="tvmcomp", standalone_mode=False)
            failure = _finish(answer, out, as_json)
        except BaseException as caught:
            error = _cause(caught)
            if TRACEBACK_FLAG in argv:
                traceback.print_exception(error)
            failure = failure_of(error)
            if as_json:
                _print_json({"error": asdict(failure)}, out)
    if failure is None:
        return 0
    print(f"error: {failure.message}", file=sys.stderr)
    for hint in failure.hints:
        print(f"hint: {hint}", file=sys.stderr)
    return failure.exit_code


def _cause(error: BaseException) -> BaseException:
    """What went wrong; an exit that is meant as one goes on its way."""
    if not isinstance(error, SystemExit):
        return error
    # Typer makes a silent exit of a pipe that broke inside a verb; completion just leaves.
    if isinstance(error.__context__, BrokenPipeError):
        return error.__context__
    raise error


def _finish(answer: object, out: TextIO, as_json: bool) -> Failure | None:
    """Print what the verb answered; a failure if that is less than was asked for."""
    if answer == INTERRUPTED:
        raise KeyboardInterrupt  # Typer has made an exit code of one.
    try:
        if isinstance(answer, Answer):
            if as_json:
                _print_json(answer.data, out)
            else:
                answer.show()
        out.flush()
    except BrokenPipeError:
        # `head` has read enough; the interpreter must not complain when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    if isinstance(answer, Answer) and answer.missed:
        return Failure(answer.missed, answer.code)
    return None


def _print_json(data: Mapping[str, object], out: TextIO) -> None:
    out.write(json.dumps({"schema": SCHEMA, **data}, indent=2, allow_nan=False) + "\n")
    out.flush()


@contextmanager
def _stdout_for_result(as_json: bool) -> Iterator[TextIO]:
    """stdout; with `as_json` anything else that prints there, native code too, goes to stderr."""
    stdout: TextIO = sys.stdout
    if not as_json:
        yield stdout
        return
    with redirect_stdout(sys.stderr):
        if stdout is not sys.__stdout__:
            yield stdout
            return
        stdout.flush()
        kept = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
        try:
            with open(kept, "w", encoding="utf-8", closefd=False) as out:
                yield out
        finally:
            os.dup2(kept, _STDOUT)
            os.close(kept)


@contextmanager
def _warnings_as_lines(*, quiet: bool) -> Iterator[None]:
    """Our own warnings as one line each on stderr; those of libraries are not the user's business."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"warning: {one_line(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            if not quiet:
                warnings.filterwarnings("always", module=r"tvmcomp(\.|$)")
        warnings.showwarning = show
        yield
