"""Is an image new to the model? A conformal p-value from distances to other patients, and a flag with a stated rate.

Each fit image is compared with the fit images of other patients, as a new patient's image is. Where the embedding is
given, ``FALSE_ALARMS`` of the images of patients like those of the fit are flagged. A network that learned from the fit
images brings them nearer to each other than new ones, so that more are: 1 to 4 of 100 were measured (docs/results.md).

Source: Vovk, Gammerman, Shafer: Algorithmic learning in a random world, 2005; patients with several images: Lee,
Barber, Willett: Distribution-free inference with hierarchical data, 2023.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

Floats = NDArray[np.float64]

FALSE_ALARMS = 0.01
"""An image is flagged as novel where its p-value is at most this."""

TOLERANCE = 1e-6  # relative; the same image in another batch may have an embedding that differs in the last bits
ROUNDING = 1e-12
COVERAGE = 0.95


def p_values(distance: Floats, held_back: Floats, patients: NDArray[np.integer]) -> Floats:
    """Return a p-value (M,) for each ``distance`` (M,), in 1 / (P + 1)..1, small = novel.

    ``held_back`` (R,): the same distance of fit images, each to other patients; ``patients`` (R,): codes of their P
    patients. With S_p the share of patient p's images that lie at least as far out,
        p-value = (1 + sum_p S_p) / (P + 1),
    so that each patient counts once. A fit image's own patient is among the P.
    """
    _, code, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.argsort(held_back)
    beyond = np.append(np.cumsum((1 / counts[code])[order][::-1])[::-1], 0.0)
    at = np.searchsorted(held_back[order], distance * (1 - TOLERANCE))
    return np.asarray(((1 + beyond[at]) / (len(counts) + 1)).clip(0, 1))


def flags(p: Floats) -> NDArray[np.bool_]:
    """Return which p-values (M,) make an image novel. With fewer than 99 patients none can."""
    return np.asarray(p <= FALSE_ALARMS + ROUNDING)


def share_beyond(limit: float, held_back: Floats, patients: NDArray[np.integer]) -> tuple[float, float]:
    """Return how many of a patient's held-back images lie farther out than ``limit``, and a bound of that share.

    The share is the mean over patients; the bound the upper end of its one-sided 95 % interval (Clopper, Pearson, 1934,
    a patient with any such image counted whole).
    """
    _, code, counts = np.unique(patients, return_inverse=True, return_counts=True)
    outside = np.bincount(code, held_back > limit)
    some = int((outside > 0).sum())
    bound = 1.0 if some == len(counts) else float(beta.ppf(COVERAGE, some + 1, len(counts) - some))
    return float((outside / counts).mean()), bound
