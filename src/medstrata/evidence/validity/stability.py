"""Stability: are the same clusters found again with other random numbers, and on other patients?

A refit is a whole training from new random numbers. Refits of kind "seeds" see the same images as each other; refits
of kind "patients" see a random 80 % of the patients each, and the rest are new to them. Agreement on one fixed
embedding is another, weaker thing: a network that was trained to show clusters shows the same ones whenever it is
asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from medstrata.evidence.validity.agreement import Labels, agreements, image_consensus, jaccard_recovery

PART = 0.8  # of the patients in each resample: most of them, so that small clusters are still there
KINDS = ("seeds", "patients")


@dataclass(frozen=True)
class Refit:
    """``labels`` (N,): what a refit says of every image; ``seen`` (N,): whether it was fitted on it.

    ``novelty_p`` (N,): p-values of novelty, as for new images; empty where only labels are compared.
    """

    kind: str
    labels: Labels
    seen: NDArray[np.bool_]
    novelty_p: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def some_patients(patients: NDArray[np.str_], share: float, seed: int) -> NDArray[np.bool_]:
    """Return for images of ``patients`` (N,) whether they belong to a random ``share`` of them; no patient is split.

    At least one patient is in; with two or more patients at least one is out where ``share`` < 1.
    """
    names, unit = np.unique(patients, return_inverse=True)
    count = min(max(round(share * len(names)), 1), max(len(names) - (share < 1), 1))
    chosen = np.zeros(len(names), dtype=bool)
    chosen[np.random.default_rng(seed).permutation(len(names))[:count]] = True
    return chosen[unit]


def thin(patients: NDArray[np.str_], most: int, seed: int) -> NDArray[np.bool_]:
    """Return which of the images of ``patients`` (N,) to take so that at most ``most`` are taken.

    Of each patient one, then of each a second one, and so on: patients are left out only where there are more of them.
    """
    random = np.random.default_rng(seed).permutation(len(patients))
    _, unit = np.unique(patients[random], return_inverse=True)
    by_unit = np.argsort(unit, kind="stable")
    starts = np.concatenate([[0], np.bincount(unit).cumsum()[:-1]])
    turn = np.empty(len(patients), dtype=np.int64)
    turn[by_unit] = np.arange(len(patients)) - starts[unit[by_unit]]
    taken = np.zeros(len(patients), dtype=bool)
    taken[random[np.argsort(turn, kind="stable")[:most]]] = True
    return taken


def stability(reference: Labels, refits: Sequence[Refit], n_clusters: int) -> dict[str, Any]:
    """Compare the clusters ``reference`` (N,) with those of ``refits``.

    - ``seeds``: ``ari``, ``ami`` of all pairs of refits and the model itself: ``mean``, ``lowest``, ``pairs``
    - ``patients``: the same over pairs of resamples; ``new``: ARI with the model on the images of patients that the
      resample did not see
    - ``recovery``: kind to one list (K,) of mean Jaccard indices, None where a cluster is empty
    """
    found: dict[str, Any] = {"refits": {kind: sum(one.kind == kind for one in refits) for kind in KINDS}}
    recovery = {}
    for kind in KINDS:
        own = [one for one in refits if one.kind == kind]
        labelings = [one.labels for one in own] + ([reference] if kind == "seeds" else [])
        found[kind] = {name: _spread(values) for name, values in agreements(labelings).items()}
        recovery[kind] = _recovery(reference, own, n_clusters)
    new = [
        adjusted_rand_score(reference[~one.seen], one.labels[~one.seen])
        for one in refits
        if one.kind == "patients" and not one.seen.all()
    ]
    found["patients"]["new"] = _spread([float(value) for value in new])
    return found | {"recovery": recovery}


def consensus(reference: Labels, refits: Sequence[Refit]) -> NDArray[np.float64]:
    """Return the share (N,) of refits that put each image into its cluster."""
    return image_consensus(reference, [one.labels for one in refits])


def _spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """Pairs of refits are not independent, so there is no interval: the mean, the lowest and how many."""
    if not values:
        return {"mean": None, "lowest": None, "pairs": 0}
    return {"mean": float(np.mean(values)), "lowest": float(np.min(values)), "pairs": len(values)}


def _recovery(reference: Labels, refits: Sequence[Refit], n_clusters: int) -> list[float | None]:
    if not refits:
        return [None] * n_clusters
    values = np.mean([jaccard_recovery(reference, one.labels, n_clusters) for one in refits], axis=0)
    return [float(value) if np.isfinite(value) else None for value in values]
