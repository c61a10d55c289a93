"""What every verb shares: the options `--json`, `--quiet`, `--traceback`, and help that is plain text."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, get_type_hints

import typer

from tvmcomp.cli.screen import Answer, Screen

__all__ = ["JSON_FLAG", "QUIET_FLAG", "TRACEBACK_FLAG", "Verb", "add_verb", "group"]

JSON_FLAG, QUIET_FLAG, TRACEBACK_FLAG = "--json", "--quiet", "--traceback"

Verb = Callable[..., Answer]

_COMMON = (
    ("json", JSON_FLAG, "Print exactly one JSON object on stdout."),
    ("quiet", QUIET_FLAG, "No progress and no warnings."),
    ("traceback", TRACEBACK_FLAG, "Show where in the code an error came from."),
)


def group(help_text: str) -> typer.Typer:
    """An empty group of commands. Help is plain text: rich would double its time."""
    return typer.Typer(
        help=help_text,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )


def add_verb(app: typer.Typer, name: str, function: Verb) -> None:
    """Register `function(screen, ...)`, whose other parameters are the command's own options."""
    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    common = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_flag(flag, text)
        )
        for name, flag, text in _COMMON
    ]

    @functools.wraps(function)
    def command(*, json: bool, quiet: bool, traceback: bool, **options: object) -> Answer:
        # `main` looks for --json and --traceback itself, since they hold for parse errors too.
        del json, traceback
        return function(Screen(quiet=quiet), **options)

    parameters = [
        *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in own),
        *common,
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    del command.__wrapped__
    app.command(name)(command)


def _flag(flag: str, text: str) -> object:
    return Annotated[bool, typer.Option(flag, help=text)]
