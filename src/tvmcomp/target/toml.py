"""Typed reading of a TOML table: each mistake is one `TargetError` that names file, key and fix."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from tvmcomp.errors import TargetError

__all__ = ["Table"]

T = TypeVar("T")


class Table:
    """A table that remembers which of its keys were read, so `finish` can refuse the rest."""

    def __init__(self, data: Mapping[str, object], file: Path, prefix: str = "") -> None:
        self._data = data
        self._file = file
        self._prefix = prefix
        self._read: set[str] = set()

    @classmethod
    def load(cls, file: Path) -> Table:
        """The top-level table of `file`."""
        try:
            return cls(tomllib.loads(file.read_text(encoding="utf-8")), file)
        except OSError as error:
            raise TargetError(f"{file}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TargetError(f"{file}: not valid TOML: {error}") from error

    def error(self, key: str, problem: str) -> TargetError:
        """A `TargetError` about `key` of this table."""
        return TargetError(f"{self._file}: key {self._prefix}{key}: {problem}")

    def text(self, key: str, *, choices: Sequence[str] = (), default: str | None = None) -> str:
        """A non-empty string, one of `choices` if there are any."""
        value = self._take(key, str, "a string", default)
        if not value and value != default:
            raise self.error(key, "is empty; give it a value or remove it")
        if choices and value != default:
            self._check_choice(key, value, choices)
        return value

    def integer(self, key: str, *, minimum: int | None = None, default: int | None = None) -> int:
        """A whole number, at least `minimum`."""
        value = self._take(key, int, "a whole number", default)
        if minimum is not None and value < minimum:
            raise self.error(key, f"must be at least {minimum}, got {value}")
        return value

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        """true or false."""
        return self._take(key, bool, "true or false", default)

    def texts(
        self, key: str, *, choices: Sequence[str] = (), default: Sequence[str] | None = None
    ) -> tuple[str, ...]:
        """An array of different strings, each one of `choices` if there are any."""
        values = self._take(
            key, list, "an array of strings", None if default is None else [*default]
        )
        for value in values:
            if not isinstance(value, str):
                raise self.error(key, f"must hold strings only, got {value!r}")
            if choices:
                self._check_choice(key, value, choices)
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise self.error(key, f"lists {twice[0]!r} twice; remove one")
        return tuple(values)

    def table(self, key: str, *, optional: bool = False) -> Table:
        """A nested table; an absent optional one reads as empty."""
        value = self._take(key, dict, "a table", {} if optional else None)
        return Table(value, self._file, f"{self._prefix}{key}.")

    def tables(self, key: str) -> tuple[Table, ...]:
        """An array of tables."""
        values = self._take(key, list, "an array of tables", [])
        for value in values:
            if not isinstance(value, dict):
                raise self.error(key, f"must hold tables only, got {value!r}")
        return tuple(
            Table(value, self._file, f"{self._prefix}{key}[{i}].") for i, value in enumerate(values)
        )

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def finish(self) -> None:
        """Refuse keys nobody asked for."""
        for key in self._data.keys() - self._read:
            raise self.error(key, f"is unknown; {_suggest(key, sorted(self._read))}")

    def _take(self, key: str, kind: type[T], wanted: str, default: T | None) -> T:
        self._read.add(key)
        if key not in self._data:
            if default is None:
                raise self.error(key, f"is missing; add it with {wanted}")
            return default
        value = self._data[key]
        # bool is a subclass of int, and `cores = true` is a mistake.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"must be {wanted}, got {value!r}")
        return value

    def _check_choice(self, key: str, value: str, choices: Sequence[str]) -> None:
        if value not in choices:
            raise self.error(key, f"{value!r} is not known; {_suggest(value, choices)}")


def _suggest(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(known)}"
