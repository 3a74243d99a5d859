"""Images without groups that are otherwise like the images at hand: the null that real clusters have to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.learning.adjustment import InBatches

VALUES_AT_ONCE = 1 << 25  # 128 MB of float32


def surrogate_study(images: NDArray[Any] | InBatches, seed: int) -> NDArray[Any] | InBatches:
    """Draw as many images as there are; where these are in batches, each batch from a Gaussian of its own.

    So a technical effect that is adjusted for is in the surrogates too, and no groups within batches.
    """
    if not isinstance(images, InBatches):
        return surrogate_images(images, len(images), seed)
    drawn = np.empty_like(images.images)
    for number in np.unique(images.numbers).tolist():
        of_batch = images.numbers == number
        drawn[of_batch] = surrogate_images(images.images[of_batch], int(of_batch.sum()), [seed, number + 1])
    return InBatches(drawn, images.numbers, images.count)


def surrogate_images(images: NDArray[Any], count: int, seed: int | list[int]) -> NDArray[Any]:
    """Draw ``count`` images from the one Gaussian that has the mean and the covariance of ``images`` (n, C, ...).

    A Gaussian has one mode, so that no groups are in there but those that a method makes. The covariance is that of all
    n - 1 principal components: a draw is the mean plus a combination of the centred images with independent normal
    weights over the square root of n - 1, which has exactly the sample covariance and needs no decomposition. Integer
    images come back rounded and cut to the range that ``images`` have.
    """
    flat = images.reshape(len(images), -1)
    low, high = flat.min(), flat.max()
    weights = np.random.default_rng(seed).standard_normal((count, len(flat)), dtype=np.float32)
    weights /= np.float32(np.sqrt(max(len(flat) - 1, 1)))
    drawn = np.empty((count, flat.shape[1]), dtype=images.dtype)
    step = max(1, VALUES_AT_ONCE // (len(flat) + count))
    for start in range(0, flat.shape[1], step):
        block = flat[:, start : start + step].astype(np.float32)
        mean = block.mean(0)
        values = mean + weights @ (block - mean)
        if images.dtype.kind in "iu":
            values = np.rint(values).clip(low, high)
        drawn[:, start : start + step] = values
    return drawn.reshape(count, *images.shape[1:])
