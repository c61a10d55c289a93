"""Who takes part in a bench: a name, a precision, and the function its own process calls to start it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tvmcomp.errors import UsageError

__all__ = ["Contender", "Runner", "Step", "resolve"]


class Runner(Protocol):
    """What a factory returns: numpy in, numpy out, and what it says about itself."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that run the network."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for and what the library says it does: threads, precision, ..."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs in the network's order."""


@dataclass(frozen=True)
class Step:
    """Work before timing: `function` ("module:name") called as `name(**options)` in a process of its own.

    Equal steps of several contenders run once.
    """

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """One network in one precision in one framework.

    `factory` ("module:name") is called as `name(threads=..., **options)` in the contender's own
    process and returns a `Runner`; `options` are JSON. Contenders of equal name and precision are
    ways to the same thing: the fastest of them is the entry.
    """

    name: str
    precision: str
    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)
    prepare: tuple[Step, ...] = ()


def resolve(path: str) -> Any:
    """The object a "module:name" string means."""
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise UsageError(f"{path!r} is not a factory; write it as 'module:function'")
    return getattr(importlib.import_module(module), name)
