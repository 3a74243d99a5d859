"""The number of clusters: every criterion with its curve, what they recommend together, and what is plausible too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import silhouette_score

from medstrata.errors import InputError
from medstrata.evidence.validity.gap import gap_statistic
from medstrata.evidence.validity.resampling import resampled_agreement
from medstrata.learning.cluster_number import (
    MOST,
    MOST_IN_GRAPH,
    Criterion,
    agreed,
    by_connection,
    directions,
    possible,
    principal,
    round_criteria,
)
from medstrata.learning.partitions import centre_partitions
from medstrata.learning.reading import natural_clusters
from medstrata.run import Progress, no_progress

STEPS = 5  # that progress is reported in
VOTES = 2  # criteria that make a number plausible


def number_of_clusters(
    z: NDArray[np.floating],
    patients: NDArray[Any] | None = None,
    range_: Iterable[int] = range(1, 11),
    seed: int = 0,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Return how many clusters embeddings z (N, Z) have, by eight criteria on one and the same embedding.

    ``patients`` (N,) says whose image each is; None: each image is a patient of its own. ``range_``: the numbers to
    look at; 1 always is one of them, and numbers above a third of the images are left out. At most 2,000 images are
    looked at, of patients drawn at random; for the graph 10,000.

    The result can be written as JSON: ``recommended``; ``plausible``, in order: what is recommended, and what two
    criteria or more give; ``sentence``; ``images``; ``curves``: for each criterion ``k``, ``value`` (None where it says
    nothing) and ``recommended``. The criteria are explained in docs/number-of-clusters.md. It is the number of clusters
    of this embedding; that they are supported is for refits to say.

    Raises
    ------
    InputError : z has a wrong shape or holds values that are not finite, or ``patients`` are not one per embedding
    """
    z, patients = _checked(z, patients)
    rows = drawn_by_patient(patients, MOST, seed)
    axes, own = principal(z[rows]), patients[rows]
    numbers = possible(range_, len(rows))
    if axes.shape[1] == 0 or numbers == [1]:
        return _result(1, {}, numbers, len(rows))
    found = centre_partitions(directions(axes), numbers, seed)
    progress("number of clusters", 1, STEPS)
    criteria = round_criteria(axes, own, found, seed)
    progress("number of clusters", 2, STEPS)
    in_graph = drawn_by_patient(patients, MOST_IN_GRAPH, seed)
    criteria["connection"] = by_connection(principal(z[in_graph]), numbers, seed)
    criteria["stability"] = resampled_agreement(axes, own, numbers, seed)
    progress("number of clusters", 3, STEPS)
    vectors = principal(directions(axes))
    criteria["gap"] = gap_statistic(vectors, found, seed)
    progress("number of clusters", 4, STEPS)
    criteria["silhouette"] = by_silhouette(vectors, found)
    criteria["communities"] = Criterion((), natural_clusters(torch.from_numpy(z[rows]).float(), seed))
    progress("number of clusters", STEPS, STEPS)
    return _result(agreed(criteria), criteria, numbers, len(rows))


def by_silhouette(vectors: NDArray[np.floating], found: dict[int, NDArray[np.int64]]) -> Criterion:
    """The K with the largest mean silhouette (Rousseeuw 1987); it has no value for one cluster and never gives 1."""
    values = tuple(
        float(silhouette_score(vectors, labels)) if number > 1 else float("nan") for number, labels in found.items()
    )
    return Criterion(values, list(found)[int(np.nanargmax(values))])


def drawn_by_patient(patients: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of at most ``most`` images, in order: all images of patients drawn at random.

    Where the images of the first patient drawn are more, as many of them.
    """
    if len(patients) <= most:
        return np.arange(len(patients))
    chance = np.random.default_rng(seed)
    sizes = np.bincount(patients)
    order = chance.permutation(len(sizes))
    taken = max(1, int(np.searchsorted(sizes[order].cumsum(), most, side="right")))
    return np.flatnonzero(np.isin(patients, order[:taken]))[:most]


def _checked(z: NDArray[np.floating], patients: NDArray[Any] | None) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    z = np.asarray(z)
    if z.ndim != 2 or z.size == 0 or z.dtype.kind not in "fiu" or not np.isfinite(z).all():
        raise InputError(
            f"Embeddings of shape {z.shape} cannot be clustered. Give an array (images, values) of finite numbers."
        )
    if patients is None:
        return z, np.arange(len(z))
    names = np.asarray(patients)
    if names.shape != (len(z),):
        raise InputError(f"There are {len(z)} embeddings and patients of shape {names.shape}. Give one patient each.")
    return z, np.unique(names, return_inverse=True)[1].astype(np.int64)


def _result(recommended: int, criteria: dict[str, Criterion], numbers: list[int], images: int) -> dict[str, Any]:
    votes = Counter(criterion.recommended for criterion in criteria.values())
    plausible = sorted({recommended} | {number for number, count in votes.items() if count >= VOTES})
    curves = {
        name: {
            "k": numbers if criterion.values else [],
            "value": [value if np.isfinite(value) else None for value in criterion.values],
            "recommended": criterion.recommended,
        }
        for name, criterion in criteria.items()
    }
    return {
        "recommended": recommended,
        "plausible": plausible,
        "sentence": _sentence(recommended, plausible, votes, images),
        "images": images,
        "curves": curves,
    }


def _sentence(recommended: int, plausible: list[int], votes: Counter[int], images: int) -> str:
    if not votes:
        return f"The number of clusters cannot be told: {images} images, or embeddings that are all equal."
    what = "No separate clusters are seen" if recommended == 1 else f"{recommended} clusters are recommended"
    others = [str(number) for number in plausible if number != recommended]
    more = f"; plausible too: {', '.join(others)}" if others else ""
    return f"{what} ({votes[recommended]} of {votes.total()} criteria give {recommended}){more}."
