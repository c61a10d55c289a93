"""Recipes: an ordered list of passes with their settings, one to one a TOML file.

name = "int8"

[[passes]]
type = "QuantizeUniform"
bits = 8
activations = { type = "StaticActivations", observer = { type = "MinMax" } }
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from tvmcomp.calibrate import Calibration, Observer
from tvmcomp.compress.plain import plain, read_value, suggest
from tvmcomp.compress.quantize import QuantizeUniform
from tvmcomp.compress.transform import LayerReport, SkippedLayer, Transform
from tvmcomp.errors import RecipeError
from tvmcomp.model import Model
from tvmcomp.resources import data_folder
from tvmcomp.target import Target

__all__ = ["CompressResult", "Recipe", "compress"]

# Every pass a recipe can name.
_PASSES: tuple[type, ...] = (QuantizeUniform,)


@dataclass(frozen=True)
class Recipe:
    """Passes in the order they run."""

    passes: tuple[Transform, ...]
    name: str = ""

    @classmethod
    def load(cls, name_or_path: str | Path) -> Recipe:
        """A shipped recipe by name, or the path of a `.toml` file of your own."""
        if isinstance(name_or_path, Path) or name_or_path.endswith(".toml"):
            file = Path(name_or_path)
        elif name_or_path in cls.names():
            file = data_folder("recipes") / f"{name_or_path}.toml"
        else:
            known = cls.names()
            raise RecipeError(f"recipe {name_or_path!r} is unknown; {suggest(name_or_path, known)}")
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeError(f"{file}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RecipeError(f"{file}: cannot be read: {error}; save it as UTF-8") from error
        return cls.from_toml(text, str(file))

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names of the shipped recipes, sorted."""
        return tuple(sorted(file.stem for file in data_folder("recipes").glob("*.toml")))

    @classmethod
    def from_toml(cls, text: str, source: str = "recipe") -> Recipe:
        """A recipe from TOML; `source` is what errors call it."""
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{source}: not valid TOML: {error}") from error
        return cls.from_dict(data, source)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """A recipe from plain data, as a manifest keeps it."""
        unknown = sorted(data.keys() - {"name", "passes"})
        if unknown:
            raise RecipeError(
                f"{source}: key {unknown[0]}: is unknown; {suggest(unknown[0], ('name', 'passes'))}"
            )
        name, passes = data.get("name", ""), data.get("passes", [])
        if not isinstance(name, str):
            raise RecipeError(f"{source}: key name: must be a string, got {name!r}")
        if not isinstance(passes, list) or not passes:
            raise RecipeError(f"{source}: key passes: must hold at least one table [[passes]]")
        steps = (read_value(item, _PASSES, f"passes[{i}]", source) for i, item in enumerate(passes))
        return cls(tuple(steps), name)

    def to_dict(self) -> dict[str, object]:
        """Plain data that `from_dict` reads back, defaults spelled out."""
        data: dict[str, object] = {"name": self.name} if self.name else {}
        return {**data, "passes": [plain(item) for item in self.passes]}

    def to_toml(self) -> str:
        """TOML that `from_toml` reads back."""
        return tomlkit.dumps(self.to_dict())

    @property
    def calibrated(self) -> bool:
        """Whether some pass needs samples to calibrate on."""
        return any(step.calibrated for step in self.passes)

    def validate(self, target: Target) -> None:
        """Refuse, before any work, what `target` cannot run."""
        for step in self.passes:
            step.check(target)

    def observations(self, model: Model, target: Target) -> dict[str, Observer]:
        """The tensors of `model` whose statistics the passes need, each with its observer."""
        needed: dict[str, Observer] = {}
        for step in self.passes:
            needed.update(step.observers(model, target))
        return needed


@dataclass(frozen=True, eq=False)
class CompressResult:
    """A compressed model with the recipe behind it and what it did, layer by layer.

    skipped: what the last pass that left something out has left out.
    """

    model: Model
    recipe: Recipe
    layers: tuple[LayerReport, ...]
    skipped: tuple[SkippedLayer, ...]
    calibration_digest: str | None


def compress(
    model: Model, recipe: Recipe, calibration: Calibration | None, target: Target
) -> CompressResult:
    """Run the passes of `recipe`; `calibration` holds `recipe.observations`, None if there are none."""
    recipe.validate(target)
    layers: list[LayerReport] = []
    skipped: list[SkippedLayer] = []
    stats = calibration.stats if calibration is not None else {}
    for step in recipe.passes:
        result = step(model, stats, target)
        model = result.model
        layers += result.layers
        skipped += result.skipped
    digest = calibration.digest if calibration is not None else None
    return CompressResult(model, recipe, tuple(layers), tuple(skipped), digest)
