"""How alike the clusters of two samples of the patients are, against samples of a surrogate without groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from medstrata.evidence.validity.stability import PART
from medstrata.learning.cluster_number import SURROGATES, Criterion, directions, one_gaussian
from medstrata.learning.partitions import centre_partitions

SAMPLES = 5
CLEAR = 0.5  # corrected agreement that more than one cluster needs

Vectors = NDArray[np.floating]


def resampled_agreement(axes: Vectors, patients: NDArray[np.int64], numbers: list[int], seed: int) -> Criterion:
    """Return the agreement (``agreement``) a of each number of clusters, corrected by that a0 of one Gaussian.

    The values are (a - a0) / (1 - a0): 0 as without groups, 1 every sample gives the same clusters; 0 for one cluster.
    Recommended is the number with the largest, 1 where none reaches ``CLEAR``. ``axes`` (N, Z): principal axes of the
    embedding; ``patients`` (N,). The correction by data without groups follows John et al. (Monte Carlo reference-based
    consensus clustering, Scientific Reports 10:1816, 2020).
    """
    chance = np.random.default_rng(seed)
    own = agreement(directions(axes), patients, numbers, chance)
    drawn = [agreement(directions(one_gaussian(axes, chance)), patients, numbers, chance) for _ in range(SURROGATES)]
    none = np.mean(drawn, 0)
    values = np.where(np.array(numbers) == 1, 0.0, (own - none) / np.maximum(1 - none, 1e-9))
    best = int(values.argmax())
    return Criterion(tuple(values.tolist()), numbers[best] if values[best] >= CLEAR else 1)


def agreement(
    vectors: Vectors, patients: NDArray[np.int64], numbers: Sequence[int], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return for each number the mean adjusted Rand index of pairs of samples, on the images that both hold.

    Each of ``SAMPLES`` samples holds ``PART`` of the patients.
    """
    names = np.unique(patients)
    rows, found = [], []
    for _ in range(SAMPLES):
        kept = generator.choice(names, max(1, round(PART * len(names))), replace=False)
        rows.append(np.flatnonzero(np.isin(patients, kept)))
        able = [number for number in numbers if number <= len(rows[-1])]
        found.append(centre_partitions(vectors[rows[-1]], able, 0))
    values = np.zeros(len(numbers))
    for place, number in enumerate(numbers):
        pairs = [_on_both(rows, [one.get(number) for one in found], pair) for pair in combinations(range(SAMPLES), 2)]
        values[place] = np.mean(pairs)
    return values


def _on_both(rows: list[NDArray[np.int64]], labels: list[NDArray[np.int64] | None], pair: tuple[int, int]) -> float:
    first, second = (labels[sample] for sample in pair)
    if first is None or second is None:
        return 0.0
    _, here, there = np.intersect1d(rows[pair[0]], rows[pair[1]], assume_unique=True, return_indices=True)
    return float(adjusted_rand_score(first[here], second[there]))
