"""Typed reading of decoded JSON: a value of the asked type, or an error naming the field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

from tvmcomp.errors import ArtifactError

__all__ = [
    "decode",
    "encode",
    "integer",
    "items",
    "mapping",
    "number",
    "optional",
    "record",
    "text",
    "texts",
    "wrong",
]

T = TypeVar("T")


def decode(data: bytes | memoryview, what: str) -> object:
    """Decode UTF-8 JSON; duplicate keys, NaN and nesting that exhausts the stack are refused."""
    try:
        return json.loads(
            bytes(data).decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{what}: not valid JSON ({str(error).splitlines()[0]}); save the artifact again"
        ) from None


def encode(value: object, what: str) -> bytes:
    """Encode as JSON with sorted keys, so equal values give equal bytes."""
    try:
        text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{what}: not JSON ({error}); use finite numbers, strings, lists and dicts"
        ) from None
    return text.encode("ascii") + b"\n"


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key in an object")
    return result


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def wrong(what: str, expected: str, got: object) -> ArtifactError:
    """The error for a field of the wrong kind."""
    shown = repr(got)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return ArtifactError(f"{what}: expected {expected}, got {shown}; save the artifact again")


def record(value: object, what: str, keys: tuple[str, ...]) -> Mapping[str, object]:
    """A JSON object with exactly these keys."""
    fields = mapping(value, what)
    if set(fields) != set(keys):
        missing = sorted(set(keys) - set(fields))
        unknown = sorted(set(fields) - set(keys))
        raise ArtifactError(
            f"{what}: missing fields {missing}, unknown fields {unknown}; save the artifact again"
        )
    return fields


def mapping(value: object, what: str) -> Mapping[str, object]:
    """A JSON object."""
    if not isinstance(value, Mapping):
        raise wrong(what, "an object", value)
    return value


def items(value: object, what: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
    """A JSON list whose members are read by `read`."""
    if not isinstance(value, list):
        raise wrong(what, "a list", value)
    return tuple(read(member, f"{what}[{i}]") for i, member in enumerate(value))


def text(value: object, what: str) -> str:
    """A JSON string."""
    if not isinstance(value, str):
        raise wrong(what, "a string", value)
    return value


def texts(value: object, what: str) -> tuple[str, ...]:
    """A JSON list of strings."""
    return items(value, what, text)


def integer(value: object, what: str) -> int:
    """A JSON integer from 0 to 2**63 - 1."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise wrong(what, "an integer from 0 to 2**63 - 1", value)
    return value


def number(value: object, what: str) -> float:
    """A JSON number, not negative."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        raise wrong(what, "a number of at least 0", value)
    return float(value)


def optional(value: object, what: str, read: Callable[[object, str], T]) -> T | None:
    """null or what `read` reads."""
    return None if value is None else read(value, what)
