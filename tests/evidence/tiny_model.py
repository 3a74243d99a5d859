"""A network small enough to check every rule for maps by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Array = NDArray[Any]


class TinyModel:
    """Two convolutions of stride 2, a linear embedding and prototypes; stored values 0..255."""

    background = -0.3

    def __init__(self, dimensions: int, channels: int = 1, widths: tuple[int, int] = (4, 7), clusters: int = 3) -> None:
        torch.manual_seed(dimensions)
        convolution = (nn.Conv2d, nn.Conv3d)[dimensions - 2]
        self.encoder = nn.Sequential(
            convolution(channels, widths[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            convolution(widths[0], widths[1], 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
        )
        self.embedding = nn.Linear(widths[1] * (12 if dimensions == 2 else 24), 5)
        for parameter in (*self.encoder.parameters(), *self.embedding.parameters()):
            parameter.requires_grad_(False)
        # The embeddings of single images, so that a handful of images is spread over all clusters.
        seeds = self.tensor(images_of(dimensions, clusters, channels))
        self.prototypes = self.embedding(self.encoder(seeds).flatten(1))

    def tensor(self, block: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(block, dtype=np.float32)) / 64 - 2

    def feature_maps(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.encoder(x)
        return features

    def differentiable_assignment(self, x: torch.Tensor, of_features: bool = False) -> torch.Tensor:
        z = self.embedding((x if of_features else self.encoder(x)).flatten(1))
        similarity = 1 / (1 + (z[:, None] - self.prototypes).square().sum(2))
        q: torch.Tensor = similarity / similarity.sum(1, keepdim=True)
        return q

    def soft_assignment(self, x: torch.Tensor) -> torch.Tensor:
        return self.differentiable_assignment(x)


def images_of(dimensions: int, count: int = 5, channels: int = 1) -> Array:
    shape = (count, channels, *((16, 12) if dimensions == 2 else (8, 12, 16)))
    return np.random.default_rng(dimensions).integers(0, 256, shape, dtype=np.uint8)
