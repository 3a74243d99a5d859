"""The gap statistic: how much more compact clusters are than those of points without groups.

Tibshirani, Walther, Hastie: Estimating the number of clusters in a data set via the gap statistic. Journal of the
Royal Statistical Society B 63:411-423, 2001.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medstrata.learning.cluster_number import Criterion
from medstrata.learning.partitions import centre_partitions, scatter

REFERENCES = 5  # sets of points without groups

Vectors = NDArray[np.floating]


def gap_statistic(axes: Vectors, found: dict[int, NDArray[np.int64]], seed: int) -> Criterion:
    """Return Gap(K) for each K of ``found``, partitions (N,) of ``axes`` (N, Z) on their principal axes.

    Points without groups are uniform in the box along the principal axes (the paper's choice b). Recommended is the
    smallest K with Gap(K) >= Gap(K+1) - s(K+1), the largest K where there is none.
    """
    chance = np.random.default_rng(seed)
    numbers = list(found)
    drawn = [chance.uniform(axes.min(0), axes.max(0), axes.shape) for _ in range(REFERENCES)]
    expected = np.array([_log_scatters(points, centre_partitions(points, numbers, seed)) for points in drawn])
    gaps = expected.mean(0) - _log_scatters(axes, found)
    errors = expected.std(0) * np.sqrt(1 + 1 / REFERENCES)
    return Criterion(tuple(gaps.tolist()), first_gap(numbers, gaps.tolist(), errors.tolist()))


def first_gap(numbers: Sequence[int], gaps: Sequence[float], errors: Sequence[float]) -> int:
    """Return the smallest of ``numbers`` with Gap(K) >= Gap(K+1) - s(K+1), s being ``errors``; the last if none has."""
    for place in range(len(numbers) - 1):
        if gaps[place] >= gaps[place + 1] - errors[place + 1]:
            return numbers[place]
    return numbers[-1]


def _log_scatters(vectors: Vectors, found: dict[int, NDArray[np.int64]]) -> NDArray[np.float64]:
    return np.log([max(scatter(vectors, labels), 1e-300) for labels in found.values()])
