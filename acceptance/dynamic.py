"""Activations quantized at run time: accuracy beside calibrated ranges, tokens far larger than others, and speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from acceptance.apart import run_apart
from acceptance.context import Context
from acceptance.row import Check, Row, at_least, figure, tried
from acceptance.sqnr import sqnr_db

if TYPE_CHECKING:
    from tvmcomp.compress import Recipe
    from tvmcomp.model import Model

__all__ = ["ROW", "encoder", "measure"]

_TOKENS, _WIDTH, _HEADS = 32, 64, 4
_OUTLIERS, _FACTOR = (3, 11), 100.0
_SAMPLES = 16
# Digits in the test split: one is 0.19 points.
_LOST_POINTS = 0.4
# What one range per token must gain over one per tensor, on the tokens that are not outliers.
_GAIN = 10.0
_DENSE = ((128, 768, 3072), (1, 768, 768))


def _recipes() -> dict[str, Recipe]:
    from tvmcomp.compress import DynamicActivations, PerTensor, QuantizeUniform, Recipe

    per_tensor = QuantizeUniform(activations=DynamicActivations(PerTensor()))
    return {
        "calibrated": Recipe.load("int8"),
        "per tensor": Recipe((per_tensor,)),
        "per token": Recipe.load("int8-dynamic"),
    }


def _digits(context: Context) -> Iterator[Check]:
    import tvmcomp as tc
    from tvmcomp.measure import accuracy
    from tvmcomp.train.digits import digits_model, read_digits, train_digits

    digits = read_digits()
    model = digits_model(train_digits(digits, epochs=context.scaled(30)))

    def share(found: Any) -> float:
        return 100 * float(
            accuracy(tc.compile(found), digits.test_images, digits.test_labels).value
        )

    wide = share(model)
    yield figure("digits, float32: accuracy, %", wide)
    for name, recipe in _recipes().items():
        data = digits.train_images[:64] if recipe.calibrated else None
        found = share(tc.compress(model, recipe, data))
        yield at_least(f"digits, {name}: accuracy, %", found, wide - _LOST_POINTS)


def encoder() -> Model:
    """Two blocks of attention and a GELU MLP over [1, 32, 64], seeded; norms stand inside the branches."""
    import torch
    from torch import nn

    import tvmcomp as tc

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
            self.q, self.k, self.v, self.out = (nn.Linear(_WIDTH, _WIDTH) for _ in range(4))
            self.up, self.down = nn.Linear(_WIDTH, 4 * _WIDTH), nn.Linear(4 * _WIDTH, _WIDTH)

        def heads(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(1, _TOKENS, _HEADS, _WIDTH // _HEADS).permute(0, 2, 1, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.norm1(x)
            q, k, v = self.heads(self.q(h)), self.heads(self.k(h)), self.heads(self.v(h))
            scores = q @ k.transpose(-1, -2) * (_WIDTH // _HEADS) ** -0.5
            mixed = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).reshape(1, _TOKENS, _WIDTH)
            x = self.norm2(x + self.out(mixed))
            return x + self.down(nn.functional.gelu(self.up(x)))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(_WIDTH, _WIDTH)
            self.blocks = nn.ModuleList(Block() for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.embed(x)
            for block in self.blocks:
                x = block(x)
            return x

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return tc.from_torch(Encoder().eval(), (torch.zeros(1, _TOKENS, _WIDTH),))


def _planted(outliers: bool, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((_SAMPLES, 1, _TOKENS, _WIDTH))
    if outliers:
        x[:, :, _OUTLIERS] *= _FACTOR
    return x.astype(np.float32)


def _encoder(context: Context) -> Iterator[Check]:
    import tvmcomp as tc

    model = encoder()
    exact = tc.compile(model)
    ordinary = [token for token in range(_TOKENS) if token not in _OUTLIERS]
    for kind, outliers in (("encoder", False), ("encoder with outlier tokens", True)):
        inputs, samples = _planted(outliers, 1), _planted(outliers, 2)
        want = np.stack([exact(x) for x in inputs])[:, :, ordinary]

        def decibels(
            recipe: Recipe, data: np.ndarray = samples, x: np.ndarray = inputs, y: np.ndarray = want
        ) -> float:
            calibration = data[:, 0] if recipe.calibrated else None
            network = tc.compile(tc.compress(model, recipe, calibration))
            return sqnr_db(y, np.stack([network(part) for part in x])[:, :, ordinary])

        found = {name: decibels(recipe) for name, recipe in _recipes().items()}
        for name, value in found.items():
            yield figure(f"{kind}, {name}: SQNR of ordinary tokens, dB", value)
        gain = found["per token"] - found["per tensor"]
        yield at_least(f"{kind}: gain of per token, dB", gain, _GAIN if outliers else 0.0)


def measure(repeats: int) -> list[dict[str, Any]]:
    """Medians of dense layers in float32 and with ranges taken at run time, in turns on one thread."""
    import tvmcomp as tc

    found = []
    for rows, depth, width in _DENSE:
        model = _dense(rows, depth, width)
        recipes = {k: r for k, r in _recipes().items() if not r.calibrated}
        networks: dict[str, Callable[[np.ndarray], object]] = {
            "float32": tc.compile(model),
            **{name: tc.compile(tc.compress(model, recipe)) for name, recipe in recipes.items()},
        }
        x = np.random.default_rng(0).standard_normal((rows, depth)).astype(np.float32)
        times: dict[str, list[float]] = {name: [] for name in networks}
        for _ in range(repeats):
            for name, network in networks.items():
                network(x)
                begun = perf_counter()
                for _ in range(5):
                    network(x)
                times[name].append((perf_counter() - begun) / 5)
        medians = {name: float(np.median(values)) for name, values in times.items()}
        found.append({"shape": f"[{rows},{depth}]x[{depth},{width}]", "seconds": medians})
    return found


def _dense(rows: int, depth: int, width: int) -> Model:
    import torch

    import tvmcomp as tc

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return tc.from_torch(torch.nn.Linear(depth, width).eval(), (torch.zeros(rows, depth),))


def _speed(context: Context) -> Iterator[Check]:
    for row in run_apart("acceptance.dynamic:measure", {"repeats": context.scaled(60)}, threads=1):
        wide = row["seconds"].pop("float32")
        for name, seconds in row["seconds"].items():
            detail = f"{1e6 * wide:.1f} us in float32, {1e6 * seconds:.1f} us {name}"
            yield at_least(f"dense {row['shape']} {name}: speedup", wide / seconds, 1.0, detail)


def _run(context: Context) -> Iterator[Check]:
    yield from tried("digits", lambda: _digits(context))
    yield from tried("encoder", lambda: _encoder(context))
    yield from tried("dense layers", lambda: _speed(context))


ROW = Row(
    "dynamic",
    "int8-dynamic: digits within 0.4 points of float32 without calibration; one range per token gains 10 dB where "
    "tokens are outliers; no dense layer slower than float32",
    _run,
)
