"""Does a reader that never saw a patient put that patient's images where the model puts them?

On the finished embedding the clusters are read again without some of the patients, and the new reader assigns those.
The embedding itself has seen everyone, so what comes out is provisional: refits of the whole model replace it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from medstrata.learning.reading import READERS, read_clusters
from medstrata.run import Progress, no_progress

FOLDS = 3
MOST_IMAGES = 5000  # drawn by patient; a third of them is read from in seconds
FEWEST_PATIENTS = 30
FEWEST_PER_CLUSTER = 5  # images that are read from
OWN = "kmeans"  # reads in place of a paper's own prototypes, which cannot be learned again without its network

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class HeldBack:
    """``rows`` (n,): images that were held back, each once; ``agreed`` (n,) bool: whether the reader agreed."""

    rows: Labels
    agreed: NDArray[np.bool_]


@dataclass(frozen=True)
class How:
    """How the model reads its clusters: ``assignment``, the seed, and the ``runs`` of a fusion."""

    assignment: str
    seed: int
    runs: int = 1


def held_back_agreement(
    embeddings: NDArray[np.float32],
    labels: Labels,
    patients: NDArray[np.str_],
    how: How,
    progress: Progress = no_progress,
) -> HeldBack | None:
    """Hold a third of the patients back, read the clusters from the others, and compare; each third in turn.

    ``embeddings`` (N, Z); ``labels`` (N,), the model's clusters; ``patients`` (N,), one name each. Clusters of reader
    and model are matched one to one so that most images that were read from agree (Hungarian algorithm). Above 5,000
    images a random part of the patients takes part. None: fewer than 30 patients, one cluster, or fewer than 5 images
    a cluster to read from.
    """
    fold_of = _folds(patients, how.seed)
    clusters = len(np.unique(labels))
    reader = how.assignment if how.assignment in READERS else OWN
    if len(np.unique(patients)) < FEWEST_PATIENTS or clusters < 2:
        return None
    if min(int(((fold_of >= 0) & (fold_of != fold)).sum()) for fold in range(FOLDS)) < FEWEST_PER_CLUSTER * clusters:
        return None
    rows, agreed = [], []
    for fold in range(FOLDS):
        back, kept = np.flatnonzero(fold_of == fold), np.flatnonzero((fold_of >= 0) & (fold_of != fold))
        known = torch.from_numpy(embeddings[kept])
        found = read_clusters(known, reader, clusters, how.seed + 1 + fold, how.runs).reader.cpu()
        match = matching(labels[kept], found(known).argmax(1).numpy())
        theirs = found(torch.from_numpy(embeddings[back])).argmax(1).numpy()
        rows.append(back)
        agreed.append(match[theirs] == labels[back])
        progress("calibration", fold + 1, FOLDS)
    return HeldBack(np.concatenate(rows), np.concatenate(agreed))


def matching(labels: Labels, others: Labels) -> Labels:
    """Return for each number among ``others`` (N,) the matched number of ``labels`` (N,), -1 for none."""
    table = np.zeros((int(labels.max()) + 1, max(int(others.max()), int(labels.max())) + 1), np.int64)
    np.add.at(table, (labels, others), 1)
    match = np.full(table.shape[1], -1)
    for own, other in zip(*linear_sum_assignment(table, maximize=True), strict=True):
        match[other] = own
    return match


def _folds(patients: NDArray[np.str_], seed: int) -> Labels:
    """Return the fold (N,) of each image, all images of a patient in one; -1: it does not take part."""
    _, code, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(counts))
    taking_part = order[np.cumsum(counts[order]) - counts[order] < MOST_IMAGES]
    fold = np.full(len(counts), -1)
    fold[taking_part] = np.arange(len(taking_part)) % FOLDS
    found: Labels = fold[code]
    return found
