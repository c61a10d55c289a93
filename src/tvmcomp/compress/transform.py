"""What every compression pass is: a frozen dataclass that says which statistics it needs and returns a new model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tvmcomp.calibrate import Observer, TensorStats
from tvmcomp.model import Model
from tvmcomp.target import Target

__all__ = ["LayerReport", "PassResult", "SkippedLayer", "Transform"]


@dataclass(frozen=True)
class LayerReport:
    """One layer a pass has changed.

    before, after: bytes of the layer's weight; sqnr_db: of the new weight against the old one.
    """

    name: str
    op: str
    scheme: str
    macs: int
    before: int
    after: int
    sqnr_db: float


@dataclass(frozen=True)
class SkippedLayer:
    """One operator a pass has left as it was, why, and its share of all multiply-accumulates."""

    name: str
    op: str
    reason: str
    macs: int
    share: float


@dataclass(frozen=True, eq=False)
class PassResult:
    """The new model, what changed in it and what did not."""

    model: Model
    layers: tuple[LayerReport, ...] = ()
    skipped: tuple[SkippedLayer, ...] = ()


class Transform(Protocol):
    """A compression pass; its fields are its recipe keys."""

    @property
    def calibrated(self) -> bool:
        """Whether the pass needs statistics of tensors, and so samples to calibrate on."""

    def check(self, target: Target) -> None:
        """Refuse, before any work, what `target` cannot run: a RecipeError with the reason."""

    def observers(self, model: Model, target: Target) -> Mapping[str, Observer]:
        """The tensors whose statistics the pass needs, each with the observer to take them."""

    def __call__(
        self, model: Model, stats: Mapping[str, TensorStats], target: Target
    ) -> PassResult:
        """The transformed model; `model` stays as it is."""
