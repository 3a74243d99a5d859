"""Prediction strength: whether clusters of one half of the patients are clusters of the other half too.

    Tibshirani, Walther: Cluster validation by prediction strength. Journal of Computational and Graphical Statistics
    14:511-528, 2005.

Shapes: N vectors of Z values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medstrata.learning.partitions import centre_partitions, centres, nearest_centre

SPLITS = 5  # into halves; each half is the test half once

Vectors = NDArray[np.floating]
Labels = NDArray[np.int64]


def prediction_strength(
    vectors: Vectors, patients: NDArray[np.int64], numbers: Sequence[int], seed: int
) -> tuple[float, ...]:
    """Return the mean prediction strength (0 to 1) of each of ``numbers`` over ``SPLITS`` splits by patient.

    ``patients`` (N,): whose image each is. A number that a half has too few images for has strength 0; 1 cluster has 1.
    """
    chance = np.random.default_rng(seed)
    rounds = []
    for _ in range(SPLITS):
        halves = halved(patients, chance)
        able = [number for number in numbers if number <= min(len(half) for half in halves)]
        found = [centre_partitions(vectors[half], able, seed) for half in halves]
        for test, training in ((0, 1), (1, 0)):
            values = dict.fromkeys(numbers, 0.0)
            for number in able:
                known = centres(vectors[halves[training]], found[training][number])
                values[number] = strength(found[test][number], nearest_centre(vectors[halves[test]], known))
            rounds.append([1.0 if number == 1 else values[number] for number in numbers])
    return tuple(np.mean(rounds, 0).tolist())


def strength(clusters: Labels, predicted: Labels) -> float:
    """Return ps(K) of one split, equation (2.1): the worst cluster's share of pairs that the other half keeps together.

    ``clusters`` (n,): of the test half; ``predicted`` (n,): the training half's clusters. One member alone counts 0.
    """
    shares = []
    for cluster in np.unique(clusters):
        kept = np.bincount(predicted[clusters == cluster])
        pairs = kept.sum() * (kept.sum() - 1)
        shares.append(float((kept * (kept - 1)).sum() / pairs) if pairs else 0.0)
    return min(shares)


def halved(patients: NDArray[np.int64], generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of a random half of the patients and those of the others."""
    names = np.unique(patients)
    first = np.isin(patients, generator.permutation(names)[: len(names) // 2])
    return np.flatnonzero(first), np.flatnonzero(~first)
