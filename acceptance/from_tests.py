"""Helpers that tests and acceptance rows share live with the tests."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from acceptance.host import ROOT

__all__ = ["from_tests"]


def from_tests(name: str) -> ModuleType:
    """The module tests/`name`.py."""
    folder = str(ROOT / "tests")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)
