"""Where a verb talks: its result on stdout, progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Answer", "Progress", "Screen", "no_progress", "print_pairs", "print_table", "staged"]

# (stage, done, total or None if unknown)
Progress: TypeAlias = Callable[[str, int, "int | None"], None]

# Wide enough that a redirected table is not folded; a terminal says its own width.
_PLAIN_WIDTH = 160


@dataclass(frozen=True)
class Answer:
    """What a verb found out: JSON values for `--json`, and how to print the same for a reader.

    `missed` says what was asked for and not reached, "" if all was; `code` is then the exit code.
    """

    data: Mapping[str, object]
    show: Callable[[], None]
    missed: str = ""
    code: int = 7  # a gate missed


class Screen:
    """Progress bars of one verb on stderr; silent if asked to be, or if stderr is no terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._live = sys.stderr.isatty() and not quiet

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A bar; call what this gives with (stage, done, total or None if unknown)."""
        if not self._live:
            yield no_progress
            return
        with self._bar() as bar:
            task: TaskID | None = None
            known = ""

            def show(stage: str, done: int, total: int | None) -> None:
                nonlocal task, known
                if task is None or stage != known:
                    # A task of its own: its ETA is its own, and rich cannot make a total unknown again.
                    if task is not None:
                        bar.remove_task(task)
                    task, known = bar.add_task(stage, total=total, completed=done), stage
                    # Now: the compiler may keep the thread that draws from running for seconds.
                    bar.refresh()
                bar.update(task, completed=done, total=total)

            yield show

    def _bar(self) -> Bar:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        return Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Aligned `name  value` lines; a None is not printed."""
    shown = [(name, str(value)) for name, value in pairs if value is not None]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        print(f"{name:<{width}}  {value}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """One table; a column whose name ends in a space is a column of figures, so it stands right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.endswith(" ")
        table.add_column(column.strip(), justify="right" if right else "left", overflow="fold")
    for row in rows:
        # Text: a name such as "[bold]" is a name, not markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False).print(table)


def no_progress(stage: str, done: int, total: int | None) -> None:
    """Nobody watches."""


def staged(progress: Progress, stage: str) -> Callable[[int, int | None], None]:
    """`progress` for work that knows only (done, total); it is told at once that `stage` begins."""
    progress(stage, 0, None)
    return lambda done, total: progress(stage, done, total)
