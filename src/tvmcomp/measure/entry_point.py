"""`EntryPoint`: an evaluation function of the user's own, named `package.module:function`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvmcomp.errors import DataError, TvmcompError
from tvmcomp.measure.process import WorkerFailed

__all__ = ["EntryPoint", "is_entry_point", "load_entry_point"]

_FIX = "return a number, one number per sample (an array), or a dict of these by name"


@dataclass(frozen=True, eq=False)
class EntryPoint:
    """function(predict) -> score, where predict({input: array}) -> {output: array}; higher is better.

    A score is a number, or an array of one number per sample (then it gets an interval), or a dict of
    scores by name, whose first one is what a gate is about.
    """

    source: str
    function: Callable[..., Any]

    def scores(
        self, run: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """What the function says of `run`: name -> [] or [samples], float64."""

        asked = False

        def predict(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
            nonlocal asked
            if not isinstance(inputs, Mapping):
                raise DataError(
                    f"{self.source}: predict got a {type(inputs).__name__}; "
                    "pass a dict of arrays by input name"
                )
            asked = True
            try:
                return dict(run({str(n): np.asarray(array) for n, array in inputs.items()}))
            except DataError as error:
                raise DataError(f"{self.source}: predict: {error}") from error

        try:
            result = self.function(predict)
        except (TvmcompError, WorkerFailed):
            raise
        except (Exception, SystemExit) as error:
            raise DataError(
                f"{self.source}: raised {type(error).__name__}: {error}; "
                "mend the function, --traceback shows where"
            ) from error
        if not asked:
            raise DataError(
                f"{self.source}: never called predict, so what it returned says nothing of the "
                "network; score what predict(inputs) gives"
            )
        named = result if isinstance(result, Mapping) else {"score": result}
        if not named:
            raise DataError(f"{self.source}: returned an empty dict; {_FIX}")
        return {str(name): self._values(str(name), value) for name, value in named.items()}

    def _values(self, name: str, value: Any) -> np.ndarray:
        try:
            array = np.asarray(value)
            numbers = array.astype(np.float64) if array.dtype.kind in "biuf" else None
        except (TypeError, ValueError):
            numbers = None
        if numbers is None or numbers.ndim > 1 or not numbers.size:
            shown = repr(value)[:60]
            raise DataError(f"{self.source}: returned {shown} as {name!r}; {_FIX}")
        if not np.isfinite(numbers).all():
            raise DataError(f"{self.source}: {name!r} holds NaN or infinity; {_FIX}")
        return numbers


def is_entry_point(text: str) -> bool:
    """Whether `text` is written as `package.module:function` and not as the path of a file."""
    module, colon, name = text.rpartition(":")
    words = [*module.split("."), name]
    return bool(colon) and all(word.isidentifier() for word in words) and not os.path.exists(text)


def load_entry_point(text: str) -> EntryPoint:
    """Import it; modules of the working folder are found, as `python -m` finds them."""
    module, _, name = text.rpartition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module), name)
    except AttributeError:
        raise DataError(f"{text}: module {module} has no {name!r}; check the name") from None
    except (Exception, SystemExit) as error:
        raise DataError(
            f"{text}: cannot be imported ({type(error).__name__}: {error}); "
            "run from the folder that holds it, or install it"
        ) from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise DataError(f"{text}: is a {type(function).__name__}; name a function")
    return EntryPoint(text, function)
