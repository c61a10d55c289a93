"""From an exception to one line and an exit code."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import typer

from tvmcomp.errors import TvmcompError

__all__ = ["Failure", "failure_of", "one_line"]

_BUG, _USAGE, _BAD_INPUT, _INCOMPATIBLE, _INTERRUPTED = 1, 2, 3, 5, 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST = 2000

# Package -> the extra of tvmcomp that brings it.
_EXTRAS = {
    "filelock": "compile",
    "onnx": "compile",
    "onnxruntime": "peers",
    "onnxscript": "peers",
    "openvino": "peers",
    "sklearn": "eval",
    "tomlkit": "compile",
    "torch": "torch",
    "tvm": "compile",
}


@dataclass(frozen=True)
class Failure:
    """Why a command failed: one line, the process's exit code, and what the user may try."""

    message: str
    exit_code: int
    hints: tuple[str, ...] = ()


def failure_of(error: BaseException) -> Failure:
    """What to tell the user about `error`; whatever is not the user's to mend is a bug."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return Failure("interrupted", _INTERRUPTED)
    if isinstance(error, TvmcompError):
        notes = tuple(one_line(note) for note in getattr(error, "__notes__", ()))
        return Failure(one_line(str(error)), error.exit_code, notes)
    if isinstance(error, typer.TyperException):
        return Failure(one_line(error.format_message()), _USAGE, _usage_hint(error))
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        if package in _EXTRAS:
            hint = f"pip install 'tvmcomp[{_EXTRAS[package]}]'"
            return Failure(f"this needs {package}, which is not installed", _INCOMPATIBLE, (hint,))
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _FULL):
        where = f"{error.filename}: " if error.filename is not None else ""
        return Failure(one_line(f"{where}{error.strerror}"), _BAD_INPUT)
    if isinstance(error, MemoryError):
        return Failure("out of memory; use a machine with more of it", _INCOMPATIBLE)
    return Failure(
        one_line(f"bug in tvmcomp: {type(error).__name__}: {error}"),
        _BUG,
        ("run it again with --traceback and report what that prints",),
    )


def one_line(text: str) -> str:
    """`text` on one line, without control characters (a file's name may hold some), not endless."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def _usage_hint(error: typer.TyperException) -> tuple[str, ...]:
    context = getattr(error, "ctx", None)
    return (f"see {context.command_path} --help",) if context is not None else ()
