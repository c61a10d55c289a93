"""Recurrent and one-dimensional networks: an LSTM tagger (Huang et al. 2015), raw audio (Dai et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["AudioNet", "Tagger"]


class Tagger(nn.Module):
    """Token ids int64 [N, T] -> a score per tag and token [N, T, tags]."""

    def __init__(
        self,
        *,
        vocabulary: int = 10000,
        width: int = 128,
        hidden: int = 128,
        layers: int = 2,
        tags: int = 17,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, hidden, num_layers=layers, bidirectional=True, batch_first=True)
        self.classifier = nn.Linear(2 * hidden, tags)

    def forward(self, input_ids: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(input_ids))
        return self.classifier(states)


class AudioNet(nn.Module):
    """A waveform [N, 1, samples] -> a score per class [N, classes]; M11's plan of layers."""

    def __init__(
        self, *, width: int = 64, depths: tuple[int, ...] = (2, 2, 3, 2), classes: int = 35
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv1d(1, width, 80, stride=4, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        ]
        channels = width
        for stage, depth in enumerate(depths):
            layers.append(nn.MaxPool1d(4))
            for _ in range(depth):
                layers += [
                    nn.Conv1d(channels, width << stage, 3, padding=1, bias=False),
                    nn.BatchNorm1d(width << stage),
                    nn.ReLU(),
                ]
                channels = width << stage
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.mean(self.features(x), dim=2))
