"""How sure an assignment is: probability, margin, typicality, novelty, rejection. One row of assignments.parquet each.

The probability of a soft assignment says which cluster is nearest, not whether any is near: an image unlike all others
still gets probabilities that sum to 1. Typicality and novelty answer that from distances in the embedding space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medstrata.errors import FitError
from medstrata.evidence.metrics import REJECTED

Floats = NDArray[np.float64]

REJECT_NOVELTY = 2.0
"""An image whose novelty is larger is rejected (cluster -1): it lies twice as far out as 99 % of the fit images."""

NEIGHBOURS = 5
LARGEST_REFERENCE = 20_000
NOVELTY_LIMIT = 1000.0
"""Novelty is cut here, so that it stays finite where the fit images are all equal."""

DISTANCES_AT_ONCE = 1 << 23  # 64 MB of float64
TOLERANCE = 1e-6  # relative; the same image in another batch may have an embedding that differs in the last bits


@dataclass(frozen=True)
class FitReference:
    """What new images are compared with.

    ``centres`` (K, Z), NaN where a cluster is empty; ``distances``: per cluster its members' distances to the centre,
    ascending; ``embeddings`` (R, Z) with their rows ``chosen`` (R,) in the fit set; ``scale``: the 99th percentile of
    the mean distance of an image to its nearest neighbours.
    """

    centres: Floats
    distances: list[Floats]
    embeddings: Floats
    chosen: NDArray[np.int64]
    scale: float


def fit_reference(
    embeddings: NDArray[np.floating], soft_assignments: NDArray[np.floating], seed: int = 0
) -> FitReference:
    """Measure the fit set: ``embeddings`` (N, Z) and ``soft_assignments`` (N, K).

    Above 20,000 images the neighbours are sought among a random subset of that size (a function of ``seed``).

    Raises
    ------
    FitError : embeddings that are not finite
    """
    z = _finite(embeddings)
    nearest = soft_assignments.argmax(axis=1)
    clusters = soft_assignments.shape[1]
    centres = np.full((clusters, z.shape[1]), np.nan)
    distances = [np.zeros(0)] * clusters
    for cluster in np.unique(nearest).tolist():
        members = z[nearest == cluster]
        centres[cluster] = members.mean(axis=0)
        distances[cluster] = np.sort(np.linalg.norm(members - centres[cluster], axis=1))
    chosen = np.arange(len(z))
    if len(z) > LARGEST_REFERENCE:
        chosen = np.sort(np.random.default_rng(seed).choice(len(z), LARGEST_REFERENCE, replace=False))
    spread = neighbour_distance(z[chosen], z[chosen], np.arange(len(chosen)))
    scale = float(np.percentile(spread, 99)) or float(spread.max())  # 0 where 99 % of the images are duplicates
    return FitReference(centres, distances, z[chosen], chosen, scale)


def assignments_table(
    image_ids: Sequence[str],
    embeddings: NDArray[np.floating],
    soft_assignments: NDArray[np.floating],
    reference: FitReference | None = None,
    seed: int = 0,
) -> pa.Table:
    """Return the table of assignments.parquet for M images.

    ``embeddings`` (M, Z) and ``soft_assignments`` (M, K). Without ``reference`` the images are the fit set itself and
    none is its own neighbour; with it they are new images. Columns:

    - ``cluster``: ``nearest``, or -1 (rejected) where novelty > ``REJECT_NOVELTY``
    - ``nearest``: the cluster of largest soft assignment
    - ``probability``: that largest soft assignment; ``margin``: the largest minus the second (K = 1: minus 0)
    - ``typicality``, 0..1: share of the cluster's fit images that lie at least as far from its centre (the mean of
      their embeddings); 1 = the most typical, 0 = farther out than all; 0 for a cluster without fit images
    - ``novelty``, 0..1000: mean distance to the 5 nearest fit images, divided by the 99th percentile of the same in the
      fit set; > 1 = farther out than 99 % of the fit images

    Raises
    ------
    FitError : embeddings that are not finite
    """
    z = _finite(embeddings)
    own_rows = None
    if reference is None:
        reference = fit_reference(z, soft_assignments, seed)
        own_rows = np.full(len(z), -1)
        own_rows[reference.chosen] = np.arange(len(reference.chosen))
    nearest = soft_assignments.argmax(axis=1)
    novelty = _novelty(neighbour_distance(z, reference.embeddings, own_rows), reference.scale)
    ordered = np.sort(np.pad(soft_assignments.astype(np.float64), ((0, 0), (1, 0))), axis=1)
    return pa.table(
        {
            "image_id": pa.array(list(image_ids), pa.string()),
            "cluster": np.where(novelty > REJECT_NOVELTY, REJECTED, nearest).astype(np.int32),
            "nearest": nearest.astype(np.int32),
            "probability": ordered[:, -1],
            "margin": ordered[:, -1] - ordered[:, -2],
            "typicality": typicality(z, nearest, reference),
            "novelty": novelty,
        }
    )


def typicality(z: Floats, nearest: NDArray[np.integer], reference: FitReference) -> Floats:
    """Return for embeddings (M, Z) of clusters ``nearest`` (M,) the share of members at least as far from the centre.

    Members are the fit images of that cluster.
    """
    result = np.zeros(len(z))
    for cluster in np.unique(nearest).tolist():
        inside = reference.distances[cluster]
        if len(inside):
            rows = nearest == cluster
            distance = np.linalg.norm(z[rows] - reference.centres[cluster], axis=1)
            result[rows] = 1 - np.searchsorted(inside, distance * (1 - TOLERANCE)) / len(inside)
    return result


def neighbour_distance(z: Floats, reference: Floats, own_rows: NDArray[np.integer] | None = None) -> Floats:
    """Return the mean distance of each row of ``z`` (M, Z) to its 5 nearest rows of ``reference`` (R, Z), exactly.

    ``own_rows`` (M,): the row of ``reference`` that is the image itself and does not count, -1 for none. Fewer than 5
    other rows: the mean over those; none: 0.
    """
    count = min(NEIGHBOURS, len(reference) - (own_rows is not None))
    result = np.zeros(len(z))
    if count < 1:
        return result
    middle = reference.mean(axis=0)  # less rounding in the products below
    centred, squares = reference - middle, np.square(reference - middle).sum(axis=1)
    step = max(1, DISTANCES_AT_ONCE // len(reference))
    for start in range(0, len(z), step):
        block = z[start : start + step]
        closeness = squares - 2 * (block - middle) @ centred.T  # squared distance up to a constant of each row
        if own_rows is not None:
            own = own_rows[start : start + step]
            closeness[np.flatnonzero(own >= 0), own[own >= 0]] = np.inf
        found = np.argpartition(closeness, count - 1, axis=1)[:, :count]
        # The products only choose the neighbours: their differences give 0 for duplicates, where products would not.
        result[start : start + step] = np.linalg.norm(block[:, None] - reference[found], axis=2).mean(axis=1)
    return result


def _novelty(distance: Floats, scale: float) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(distance > 0, distance / scale, 0.0)
    return np.minimum(ratio, NOVELTY_LIMIT)


def _finite(embeddings: NDArray[np.floating]) -> Floats:
    z = np.asarray(embeddings, dtype=np.float64)
    if not np.isfinite(z).all():
        raise FitError(
            "The embeddings hold NaN or infinite values: the training diverged. Fit again with a smaller learning rate."
        )
    return z
