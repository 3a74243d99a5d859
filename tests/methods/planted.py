"""Small planted images: K groups that differ in the place of a bright square, shifted off zero, with noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def squares(
    count: int = 60, groups: int = 3, dimensions: int = 2, channels: int = 1, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (N, C, 16, 16) or (N, C, 8, 16, 16) and their groups (N,)."""
    generator = np.random.default_rng(seed)
    shape = (16, 16) if dimensions == 2 else (8, 16, 16)
    labels = np.arange(count) % groups
    images = generator.normal(60, 6, (count, channels, *shape))
    for image, group in zip(images, labels, strict=True):
        row = 1 + 5 * group
        image[..., row : row + 4, 2:14] += 120
    return np.clip(images, 0, 255).astype(np.uint8), labels
