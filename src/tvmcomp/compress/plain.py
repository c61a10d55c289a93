"""Frozen dataclasses to and from the plain data of a TOML file, each as a table with its class name under `type`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, TypeGuard, Union, get_args, get_origin, get_type_hints

from tvmcomp.errors import RecipeError, TvmcompError

__all__ = ["plain", "read_value", "suggest"]


def plain(value: Any) -> Any:
    """`PerGroup(32, 0)` -> `{"type": "PerGroup", "size": 32, "axis": 0}`; TOML has no null, so None is left out."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if not is_dataclass(value):
        return value
    table = {"type": type(value).__name__}
    for item in fields(value):
        current = getattr(value, item.name)
        if current is not None:
            table[item.name] = plain(current)
    return table


def read_value(value: Any, allowed: Sequence[Any], key: str, source: str) -> Any:
    """`value` as one of the `allowed` types; a mistake is one RecipeError that names `source` and `key`."""
    classes = {kind.__name__: kind for kind in allowed if _is_class(kind)}
    if isinstance(value, dict) and classes:
        return _read_table(value, classes, key, source)
    for kind in allowed:
        if get_origin(kind) is tuple and isinstance(value, list):
            inner = get_args(kind)[:1]
            return tuple(
                read_value(item, inner, f"{key}[{i}]", source) for i, item in enumerate(value)
            )
        # bool is a subclass of int, and `bits = true` is a mistake.
        if kind in (bool, int, str) and type(value) is kind:
            return value
        if kind is float and type(value) in (int, float):
            return float(value)
    wanted = " or ".join(_describe(kind) for kind in allowed if kind is not NoneType)
    raise RecipeError(f"{source}: key {key}: must be {wanted}, got {value!r}")


def suggest(word: str, known: Sequence[str]) -> str:
    """How to go on after an unknown word."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(known)}"


def _read_table(table: dict[str, Any], classes: dict[str, type], key: str, source: str) -> Any:
    name = table.get("type")
    if name not in classes:
        problem = "is missing" if name is None else f"{name!r} is unknown"
        hint = suggest(str(name), tuple(classes))
        raise RecipeError(f"{source}: key {key}.type: {problem}; {hint}")
    kind = classes[name]
    known = {item.name: item for item in fields(kind)}
    hints = get_type_hints(kind)
    arguments = {}
    for word, value in table.items():
        if word == "type":
            continue
        if word not in known:
            raise RecipeError(
                f"{source}: key {key}.{word}: is unknown to {name}; {suggest(word, tuple(known))}"
            )
        arguments[word] = read_value(value, _alternatives(hints[word]), f"{key}.{word}", source)
    for word, item in known.items():
        if word not in arguments and _default(item) is MISSING:
            raise RecipeError(f"{source}: key {key}.{word}: is missing; {name} needs it")
    try:
        return kind(**arguments)
    except TvmcompError as error:
        raise RecipeError(f"{source}: key {key}: {error}") from error


def _is_class(kind: Any) -> TypeGuard[type]:
    return isinstance(kind, type) and is_dataclass(kind)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _default(item: Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default


def _describe(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "an array"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    return words.get(kind, f'a table {{ type = "{getattr(kind, "__name__", kind)}" }}')
