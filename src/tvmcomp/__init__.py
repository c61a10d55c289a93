"""tvmcomp: compress a trained model, compile it for one described device, and ship it as one measured file."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvmcomp.compress import QuantizeUniform, Recipe
    from tvmcomp.flow import Executable
    from tvmcomp.flow import compile_model as compile
    from tvmcomp.flow import compress_model as compress
    from tvmcomp.flow import evaluate_model as evaluate
    from tvmcomp.frontend import from_onnx, from_torch, load_model
    from tvmcomp.model import Model
    from tvmcomp.runtime import Network, load
    from tvmcomp.target import Target

__version__ = "0.1.0"

__all__ = [
    "Executable",
    "Model",
    "Network",
    "QuantizeUniform",
    "Recipe",
    "Target",
    "compile",
    "compress",
    "evaluate",
    "from_onnx",
    "from_torch",
    "load",
    "load_model",
]

_HOMES = {
    "Executable": "flow:Executable",
    "Model": "model:Model",
    "Network": "runtime:Network",
    "QuantizeUniform": "compress:QuantizeUniform",
    "Recipe": "compress:Recipe",
    "Target": "target:Target",
    "compile": "flow:compile_model",
    "compress": "flow:compress_model",
    "evaluate": "flow:evaluate_model",
    "from_onnx": "frontend:from_onnx",
    "from_torch": "frontend:from_torch",
    "load": "runtime:load",
    "load_model": "frontend:load_model",
}


def __getattr__(name: str) -> object:
    # Loaded on first use: the compiler takes seconds to import, running an artifact needs none of it.
    if name not in _HOMES:
        raise AttributeError(f"module 'tvmcomp' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(import_module(f"tvmcomp.{module}"), attribute)
    globals()[name] = value
    return value


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # Importing the room `compress` would otherwise hide the function of the same name.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
