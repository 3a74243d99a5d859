"""How sure an assignment is: probability, margin, typicality, novelty, rejection. One row of assignments.parquet each.

The probability of a soft assignment says which cluster is nearest, not whether any is near: an image unlike all others
still gets probabilities that sum to 1. Typicality and novelty answer that from distances in the embedding space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from medstrata.errors import FitError
from medstrata.evidence.metrics import REJECTED
from medstrata.evidence.novelty import TOLERANCE, flags, p_values

Floats = NDArray[np.float64]

REJECT_NOVELTY = 2.0
"""An image whose novelty is larger is rejected (cluster -1): it lies twice as far out as 99 % of the fit images.

Rejection is stricter than the flag ``novel``, which by its making holds for about 1 % of any batch, of the fit images
too: those are to be looked at, and still belong to a cluster.
"""

NEIGHBOURS = 5
LARGEST_REFERENCE = 20_000
NOVELTY_LIMIT = 1000.0
"""Novelty is cut here, so that it stays finite where the fit images are all equal."""

DISTANCES_AT_ONCE = 1 << 23  # 64 MB of float64
ROWS_AT_ONCE = 1 << 16  # images whose embeddings are held in float64

Patients = Sequence[str | None]
"""Pseudonyms of the patients of the images; None or "": unknown, taken as a patient of its own."""


@dataclass(frozen=True)
class FitReference:
    """What new images are compared with.

    ``centres`` (K, Z), NaN where a cluster is empty; ``distances``: per cluster its members' distances to the centre,
    ascending; ``embeddings`` (R, Z) with their rows ``chosen`` (R,) in the fit set, their ``patients`` (R,) and
    ``spread`` (R,): the mean distance to the nearest neighbours of other patients; ``scale``: its 99th percentile.
    """

    centres: Floats
    distances: list[Floats]
    embeddings: Floats
    chosen: NDArray[np.int64]
    patients: NDArray[np.str_]
    spread: Floats
    scale: float


def fit_reference(
    embeddings: NDArray[np.floating],
    soft_assignments: NDArray[np.floating],
    patients: Patients | None = None,
    seed: int = 0,
) -> FitReference:
    """Measure the fit set: ``embeddings`` (N, Z), ``soft_assignments`` (N, K) and ``patients`` (N,).

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
    names = patient_names(patients, len(z), "fit")[chosen]
    codes = np.unique(names, return_inverse=True)[1]
    spread = neighbour_distance(z[chosen], z[chosen], codes, codes)
    scale = float(np.percentile(spread, 99)) or float(spread.max())  # 0 where 99 % of the images are duplicates
    return FitReference(centres, distances, z[chosen], chosen, names, spread, scale)


def patient_names(patients: Patients | None, count: int, batch: str) -> NDArray[np.str_]:
    """Return a name for the patient of each of ``count`` images; one of its own in this ``batch`` where unknown."""
    given: Patients = [None] * count if patients is None else patients
    return np.array([name or f"{batch} image {row}" for row, name in enumerate(given)], dtype=np.str_)


def assignments_table(
    image_ids: Sequence[str],
    embeddings: NDArray[np.floating],
    soft_assignments: NDArray[np.floating],
    reference: FitReference | None = None,
    patients: Patients | None = None,
    seed: int = 0,
) -> pa.Table:
    """Return the table of assignments.parquet for M images.

    ``embeddings`` (M, Z), ``soft_assignments`` (M, K) and ``patients`` (M,). Without ``reference`` the images are the
    fit set itself; with it they are new images. Images of one patient are no neighbours: a new patient has none of his
    own either, and would seem farther out than the fit images. Columns:

    - ``cluster``: ``nearest``, or -1 (rejected) where novelty > ``REJECT_NOVELTY``
    - ``nearest``: the cluster of largest soft assignment
    - ``probability``: that largest soft assignment; ``margin``: the largest minus the second (K = 1: minus 0)
    - ``typicality``, 0..1: share of the cluster's fit images that lie at least as far from its centre (the mean of
      their embeddings); 1 = the most typical, 0 = farther out than all; 0 for a cluster without fit images
    - ``novelty``, 0..1000: mean distance to the 5 nearest fit images of other patients, divided by the 99th percentile
      of the same in the fit set; > 1 = farther out than 99 % of the fit images
    - ``novelty_p``, 0..1: share of patients' fit images that lie at least as far out (``novelty.p_values``)
    - ``novel``: ``novelty_p`` is at most .01, the rate of false alarms among new patients like those of the fit

    Raises
    ------
    FitError : embeddings that are not finite
    """
    names = patient_names(patients, len(embeddings), "fit" if reference is None else "new")
    if reference is None:
        reference = fit_reference(embeddings, soft_assignments, patients, seed)
    codes = np.unique(np.concatenate([names, reference.patients]), return_inverse=True)[1]
    parts = []
    for start in range(0, max(len(embeddings), 1), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        of_images = codes[: len(embeddings)][part]
        columns = _columns(
            _finite(embeddings[part]), soft_assignments[part], reference, of_images, codes[len(embeddings) :]
        )
        parts.append(columns)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return pa.table({"image_id": pa.array(list(image_ids), pa.string()), **whole})


def _columns(
    z: Floats,
    soft_assignments: NDArray[np.floating],
    reference: FitReference,
    patients: NDArray[np.integer],
    of_reference: NDArray[np.integer],
) -> dict[str, NDArray[Any]]:
    """Return the columns of some images: embeddings z (n, Z); ``patients`` (n,) and ``of_reference`` (R,) are codes."""
    nearest = soft_assignments.argmax(axis=1)
    distance = neighbour_distance(z, reference.embeddings, patients, of_reference)
    novelty = relative_novelty(distance, reference.scale)
    p = p_values(distance, reference.spread, of_reference)
    ordered = np.sort(np.pad(soft_assignments.astype(np.float64), ((0, 0), (1, 0))), axis=1)
    return {
        "cluster": np.where(novelty > REJECT_NOVELTY, REJECTED, nearest).astype(np.int32),
        "nearest": nearest.astype(np.int32),
        "probability": ordered[:, -1],
        "margin": ordered[:, -1] - ordered[:, -2],
        "typicality": typicality(z, nearest, reference),
        "novelty": novelty,
        "novelty_p": p,
        "novel": flags(p),
    }


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


def neighbour_distance(
    z: Floats,
    reference: Floats,
    patients: NDArray[np.integer] | None = None,
    of_reference: NDArray[np.integer] | None = None,
) -> Floats:
    """Return the mean distance of each row of ``z`` (M, Z) to its 5 nearest rows of ``reference`` (R, Z), exactly.

    Rows of the same patient do not count: ``patients`` (M,) and ``of_reference`` (R,) are codes. Fewer than 5 other
    rows: the mean over those; none: 0.
    """
    count = min(NEIGHBOURS, len(reference))
    result = np.zeros(len(z))
    middle = reference.mean(axis=0)  # less rounding in the products below
    centred, squares = reference - middle, np.square(reference - middle).sum(axis=1)
    step = max(1, DISTANCES_AT_ONCE // len(reference))
    for start in range(0, len(z), step):
        block = z[start : start + step]
        closeness = squares - 2 * (block - middle) @ centred.T  # squared distance up to a constant of each row
        if patients is not None:
            closeness[patients[start : start + step, None] == of_reference] = np.inf
        # a seventh of the time of numpy's argpartition
        found = torch.from_numpy(closeness).topk(count, largest=False, sorted=False).indices.numpy()
        counted = np.isfinite(np.take_along_axis(closeness, found, axis=1))
        # The products only choose the neighbours: their differences give 0 for duplicates, where products would not.
        distances = np.linalg.norm(block[:, None] - reference[found], axis=2) * counted
        result[start : start + step] = distances.sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    return result


def relative_novelty(distance: Floats, scale: float) -> Floats:
    """Return distances (M,) in units of ``scale``, cut at 1000; 0 stays 0."""
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
