"""Real photographs as network inputs: crops of the two that ship with scikit-learn."""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = ["CALIBRATION_SEED", "EVALUATION_SEED", "STATISTICS_SEED", "photos"]

STATISTICS_SEED, CALIBRATION_SEED, EVALUATION_SEED = 0, 1, 2

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_SMALLEST_CROP = 0.3  # of the shorter side


def photos(count: int, size: int, seed: int) -> np.ndarray:
    """float32 [count, 3, size, size], normalised as for ImageNet: random crops, scales and flips."""
    import torch

    rng = np.random.default_rng(seed)
    pictures = _pictures()
    images = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        height, width = picture.shape[:2]
        side = int(min(height, width) * rng.uniform(_SMALLEST_CROP, 1.0))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = picture[top : top + side, left : left + side].astype(np.float32) / 255
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        pixels = torch.from_numpy(
            np.ascontiguousarray(((crop - _MEAN) / _DEVIATION).transpose(2, 0, 1))
        )
        scaled = torch.nn.functional.interpolate(
            pixels[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False
        )
        images.append(scaled[0].numpy())
    return np.ascontiguousarray(np.stack(images), np.float32)


@cache
def _pictures() -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_sample_images

    return tuple(np.asarray(image) for image in load_sample_images().images)
