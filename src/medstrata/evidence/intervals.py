"""How sure a mean is: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
COVERAGE = 0.95


def mean_interval(values: Sequence[float] | NDArray[np.floating], seed: int = 0) -> dict[str, float | None]:
    """Return ``mean``, ``low`` and ``high``: the mean of ``values`` (n,) and its 95 % percentile bootstrap interval.

    NaN is left out; where nothing is left all three are None. The unit that is drawn is one value, so give one value
    per patient where images of a patient are not independent. Source: Efron, Tibshirani, An introduction to the
    bootstrap, 1993, chapter 13.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return {"mean": None, "low": None, "high": None}
    draws = np.random.default_rng(seed).integers(len(known), size=(DRAWS, len(known)))
    low, high = np.quantile(known[draws].mean(1), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return {"mean": float(known.mean()), "low": float(low), "high": float(high)}
