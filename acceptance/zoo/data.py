"""Inputs of every kind of network: photographs, English text, sounds; seeded, different per seed."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from acceptance.photos import photos

__all__ = ["Photos", "Sounds", "Tokens"]


@dataclass(frozen=True)
class Photos:
    """`x`: crops of photographs, float32 [count, 3, size, size]."""

    size: int = 224

    def make(self, count: int, seed: int) -> dict[str, np.ndarray]:
        """`count` samples."""
        return {"x": photos(count, self.size, seed)}


@dataclass(frozen=True)
class Tokens:
    """Passages of the descriptions of data sets that ship with scikit-learn, a number per word.

    `input_ids` int64 [count, length]; with `masked` also `attention_mask`, its end zero where a passage is
    shorter, and `token_type_ids`, 1 in the second part of a passage.
    """

    length: int = 128
    vocabulary: int = 30522
    masked: bool = True

    def make(self, count: int, seed: int) -> dict[str, np.ndarray]:
        """`count` samples."""
        words, rng = _words(), np.random.default_rng([seed, self.length])
        starts = rng.integers(len(words) - self.length, size=count)
        # A stable number per word: the same word is the same token everywhere.
        codes = np.array([zlib.crc32(word.encode()) % self.vocabulary for word in words])
        ids = np.stack([codes[start : start + self.length] for start in starts]).astype(np.int64)
        if not self.masked:
            return {"input_ids": ids}
        places = np.arange(self.length)
        lengths = rng.integers(self.length // 2, self.length + 1, size=(count, 1))
        mask = (places < lengths).astype(np.int64)
        second = (places >= lengths // 2) & (places < lengths)
        return {
            "input_ids": ids * mask,
            "attention_mask": mask,
            "token_type_ids": second.astype(np.int64),
        }


@dataclass(frozen=True)
class Sounds:
    """`x`: voice-like waveforms, float32 [count, 1, samples]: gliding harmonics, formants, breath."""

    samples: int = 16000
    rate: float = 16000.0

    def make(self, count: int, seed: int) -> dict[str, np.ndarray]:
        """`count` samples."""
        rng = np.random.default_rng([seed, self.samples])
        return {"x": np.stack([self._one(rng) for _ in range(count)])[:, None].astype(np.float32)}

    def _one(self, rng: np.random.Generator) -> np.ndarray:
        time = np.arange(self.samples) / self.rate
        place = np.linspace(0.0, 1.0, self.samples)
        pitch = np.interp(place, np.linspace(0, 1, 5), rng.uniform(90.0, 260.0, 5))
        phase = 2 * np.pi * np.cumsum(pitch) / self.rate
        formants = [
            np.interp(place, np.linspace(0, 1, 4), rng.uniform(low, high, 4))
            for low, high in ((250, 900), (900, 2400), (2300, 3200))
        ]
        sound = np.zeros(self.samples)
        for harmonic in range(1, 24):
            gain = sum(np.exp(-(((harmonic * pitch - peak) / 180.0) ** 2)) for peak in formants)
            sound += (gain + 0.05) / harmonic**0.5 * np.sin(harmonic * phase)
        loud = np.interp(place, np.linspace(0, 1, 9), rng.uniform(0.0, 1.0, 9))
        breath = 0.05 * rng.standard_normal(self.samples) * (1 + np.sin(2 * np.pi * 3 * time))
        return 0.3 * (sound * loud + breath)


@cache
def _words() -> tuple[str, ...]:
    from importlib.resources import files

    folder = files("sklearn.datasets.descr")
    texts = sorted(path.name for path in folder.iterdir() if path.name.endswith(".rst"))
    text = " ".join((folder / name).read_text(encoding="utf-8") for name in texts)
    return tuple(re.findall(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]", text))
