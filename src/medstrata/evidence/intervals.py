"""How sure a mean is: intervals by the bootstrap, and by Student's t for a few values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

DRAWS = 2000
COVERAGE = 0.95


def mean_interval(
    values: Sequence[float] | NDArray[np.floating], seed: int = 0, units: Sequence[str] | None = None
) -> dict[str, float | None]:
    """Return ``mean``, ``low`` and ``high``: the mean of ``values`` (n,) and its 95 % percentile bootstrap interval.

    NaN is left out; where nothing is left all three are None. What is drawn is one value, or with ``units`` (n,), such
    as patients, the mean of one unit: images of one patient are not independent. Fewer than about ten values give an
    interval that is too narrow (``few_interval``). Source: Efron, Tibshirani, An introduction to the bootstrap, 1993,
    chapter 13.
    """
    every = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(every)
    known = every[finite]
    if not len(known):
        return {"mean": None, "low": None, "high": None}
    if units is not None:
        _, unit = np.unique(np.asarray(units)[finite], return_inverse=True)
        known = np.bincount(unit, known) / np.bincount(unit)
    draws = np.random.default_rng(seed).integers(len(known), size=(DRAWS, len(known)))
    low, high = np.quantile(known[draws].mean(1), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return {"mean": float(known.mean()), "low": float(low), "high": float(high)}


def few_interval(values: Sequence[float] | NDArray[np.floating]) -> dict[str, float | None]:
    """As ``mean_interval``, by Student's t, for a few values such as one per seed; one value has no interval."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return {"mean": None, "low": None, "high": None}
    mean, half = float(known.mean()), 0.0
    if len(known) > 1:
        half = float(student.ppf((1 + COVERAGE) / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known)))
    return {"mean": mean, "low": mean - half, "high": mean + half}
