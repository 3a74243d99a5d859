"""Images without groups that are otherwise like the images at hand: the null that real clusters have to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.learning.adjustment import InBatches

VALUES_AT_ONCE = 1 << 25  # 128 MB of float32
FEWEST_IN_A_BATCH = 10  # patients that a Gaussian of its own is drawn from


def surrogate_study(
    images: NDArray[Any] | InBatches, patients: NDArray[np.str_], seed: int
) -> NDArray[Any] | InBatches:
    """Draw as many images of as many patients as there are; each batch, where there are some, from its own Gaussian.

    So a technical effect that is adjusted for is in the surrogates too, and no groups within batches. Images of batches
    of fewer than ten patients are drawn as if they were in none.
    """
    if not isinstance(images, InBatches):
        return surrogate_images(images, patients, [seed])
    drawn = surrogate_images(images.images, patients, [seed])
    for number in np.unique(images.numbers).tolist():
        of_batch = images.numbers == number
        if len(np.unique(patients[of_batch])) >= FEWEST_IN_A_BATCH:
            drawn[of_batch] = surrogate_images(images.images[of_batch], patients[of_batch], [seed, number + 1])
    return InBatches(drawn, images.numbers, images.count)


def surrogate_images(images: NDArray[Any], patients: NDArray[np.str_], seed: list[int]) -> NDArray[Any]:
    """Draw one image for each of ``images`` (n, C, ...) from one Gaussian of ``patients`` (n,) and one within them.

    A Gaussian has one mode, so that no groups are in there but those that a method makes; images of one patient are as
    alike as they are in truth. Each Gaussian has the covariance of all principal components of the patients' mean
    images, or of the differences from them: a draw is a combination of these images with independent normal weights,
    over the root of their degrees of freedom, which has exactly that covariance and needs no decomposition. With one
    image of each patient there is nothing within. Integers come back rounded and cut to the range of ``images``.
    """
    flat = images.reshape(len(images), -1)
    low, high = flat.min(), flat.max()
    names, unit = np.unique(patients, return_inverse=True)
    average = np.zeros((len(names), len(flat)), dtype=np.float32)
    average[unit, np.arange(len(flat))] = (1 / np.bincount(unit))[unit]
    random = np.random.default_rng(seed)
    between = _weights(random, len(names), len(names) - 1)[unit]
    within = _weights(random, len(flat), len(flat) - len(names)) if len(names) < len(flat) else None
    drawn = np.empty_like(flat)
    step = max(1, VALUES_AT_ONCE // (2 * len(flat)))
    for start in range(0, flat.shape[1], step):
        block = flat[:, start : start + step].astype(np.float32)
        means = average @ block
        values = means.mean(0) + between @ (means - means.mean(0))
        if within is not None:
            values += within @ (block - means[unit])
        if images.dtype.kind in "iu":
            values = np.rint(values).clip(low, high)
        drawn[:, start : start + step] = values
    return drawn.reshape(images.shape)


def _weights(random: np.random.Generator, count: int, freedom: int) -> NDArray[np.float32]:
    """Return independent normal weights (count, count) over the root of the degrees of freedom."""
    weights: NDArray[np.float32] = random.standard_normal((count, count), dtype=np.float32)
    return weights / np.float32(np.sqrt(max(freedom, 1)))
