"""The quickstart's network: 26k parameters that read scikit-learn's 8x8 digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from tvmcomp.frontend import from_torch
from tvmcomp.model import Model

__all__ = [
    "Digits",
    "digit_scores",
    "digits_model",
    "digits_net",
    "read_digits",
    "save_program",
    "train_digits",
]

Progress: TypeAlias = Callable[[int, int | None], None]

BATCH = 32
LEARNING_RATE = 2e-2

_EXAMPLE = (torch.zeros(1, 1, 8, 8),)


@dataclass(frozen=True, eq=False)
class Digits:
    """The data set, split: images float32 [N, 1, 8, 8] in 0..1, labels int64 [N]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def read_digits(seed: int = 0) -> Digits:
    """All 1797 digits, 70 % to train and 30 % to test, each digit in both in equal share."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    parts = train_test_split(
        images, labels.astype(np.int64), test_size=0.3, stratify=labels, random_state=seed
    )
    train_images, test_images, train_labels, test_labels = parts
    return Digits(train_images, train_labels, test_images, test_labels)


def digits_net() -> nn.Sequential:
    """Three convolutions with batch norm, two poolings, one dense layer: 25,978 parameters."""

    def block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
        # The batch norm shifts already, so the convolution has no bias.
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return convolution, nn.BatchNorm2d(outputs), nn.ReLU()

    return nn.Sequential(
        *block(1, 16),
        *block(16, 32),
        nn.MaxPool2d(2),
        *block(32, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def train_digits(
    digits: Digits, *, epochs: int = 30, seed: int = 0, progress: Progress | None = None
) -> nn.Sequential:
    """Train from scratch on the training part; equal seeds give equal weights on one machine."""
    images, labels = torch.from_numpy(digits.train_images), torch.from_numpy(digits.train_labels)
    steps = epochs * -(-len(images) // BATCH)
    # fork_rng: the caller's random numbers stay as they were.
    with _one_thread(), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        net = digits_net().train()
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for epoch in range(epochs):
            for batch in torch.randperm(len(images)).split(BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
                optimizer.step()
                schedule.step()
            if progress is not None:
                progress(epoch + 1, epochs)
    return net.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Batches this small gain nothing from more threads, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def digit_scores(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """Scores [N, 10] of the network on images."""
    with torch.inference_mode():
        return np.asarray(net(torch.from_numpy(images)).numpy())


def digits_model(net: nn.Module) -> Model:
    """The network imported for batches of one."""
    return from_torch(net, _EXAMPLE)


def save_program(net: nn.Module, path: Path) -> None:
    """Write the network for batches of one as a `.pt2` file."""
    torch.export.save(torch.export.export(net, _EXAMPLE), path)
