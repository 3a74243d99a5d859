"""Seeded resampling of units: p-values by permutation, intervals by the bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PERMUTATIONS = 99_999  # at most
EXCEEDANCES = 100  # after which no more are drawn: the p-value is then known to about a tenth of itself
BLOCK = 2_000_000  # numbers held at once
SAME = 1e-9  # two statistics that differ by less, relatively, are equal: the order of a sum must not decide


def permutation_p(statistic: float, draw: Callable[[int], Floats], size: int) -> float:
    """Return the p-value of ``statistic`` among those that ``draw(count)`` (count,) makes by permutation.

    Drawn one after the other until ``EXCEEDANCES`` of them reach ``statistic``, which takes l draws and gives
    p = ``EXCEEDANCES`` / l, or until all ``PERMUTATIONS`` are drawn, of which g reach it and which gives
    p = (g + 1) / (``PERMUTATIONS`` + 1). Either is valid: under the null hypothesis P(p <= a) <= a. ``size`` is how
    many numbers one permutation holds. Source: Besag, Clifford, Sequential Monte Carlo p-values, Biometrika 78, 1991.
    """
    threshold, reached, drawn = statistic - SAME * abs(statistic), 0, 0
    while drawn < PERMUTATIONS:
        count = min(PERMUTATIONS - drawn, max(1, BLOCK // size), 1000 if not drawn else 10_000)
        places = np.flatnonzero(draw(count) >= threshold)
        if reached + len(places) >= EXCEEDANCES:
            return EXCEEDANCES / (drawn + int(places[EXCEEDANCES - reached - 1]) + 1)
        reached, drawn = reached + len(places), drawn + count
    return (reached + 1) / (PERMUTATIONS + 1)


def resample(measure: Callable[[Floats], Floats], n: int, draws: int, generator: np.random.Generator) -> Floats:
    """Return ``measure`` of ``draws`` bootstrap samples of n units: (draws,).

    ``measure`` is given counts (D, n), how often each sample holds each unit, and returns (D,).
    """
    edges = [*range(0, draws, max(1, BLOCK // n)), draws]
    return np.concatenate([measure(_counts(stop - start, n, generator)) for start, stop in pairwise(edges)])


def _counts(draws: int, n: int, generator: np.random.Generator) -> Floats:
    units = generator.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(units.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)
