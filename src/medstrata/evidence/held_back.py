"""Does a reader that never saw a patient put that patient's images where the model puts them?

On the finished embedding the clusters are read again without some of the patients, and the new reader assigns those.
The embedding itself has seen everyone; how far what comes out holds for whole fits on other patients stands in
docs/results.md. Refits on 80 % of the patients were tried in place of these readers, and agree too much: they share
most of their patients with the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medstrata.evidence.validity.agreement import matching
from medstrata.learning.reading import READERS, read_clusters
from medstrata.run import Progress, no_progress

FOLDS = 2  # readers of halves: they share no patient, as two fits on different patients would
REPEATS = 2  # divisions into halves: one division alone depends much on chance
MOST_IMAGES = 5000  # drawn by patient; half of them is read from in seconds
FEWEST_PATIENTS = 30
FEWEST_PER_CLUSTER = 5  # images that are read from
OWN = "kmeans"  # reads in place of a paper's own prototypes, which cannot be learned again without its network

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class HeldBack:
    """One entry for each image and each reader that did not see its patient: n in all.

    ``rows`` (n,): the image; ``soft`` (n, K'): the reader's soft assignment, its K' clusters not matched with those of
    the model; ``agreed`` (n,) bool: whether reader and model put it into the same cluster; ``reader`` (n,): its number.
    """

    rows: Labels
    soft: NDArray[np.float32]
    agreed: NDArray[np.bool_]
    reader: Labels


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
    """Hold half of the patients back, read the clusters from the others, and compare; each half in turn, twice.

    ``embeddings`` (N, Z); ``labels`` (N,), the model's clusters; ``patients`` (N,), one name each. Clusters of reader
    and model are matched one to one so that most images that were read from agree (Hungarian algorithm). Above 5,000
    images a random part of the patients takes part. None: fewer than 30 patients, one cluster, or fewer than 5 images
    a cluster to read from.
    """
    if len(np.unique(patients)) < FEWEST_PATIENTS or (clusters := len(np.unique(labels))) < 2:
        return None
    parts = list(_parts(patients, how.seed))
    if min(len(kept) for _, kept in parts) < FEWEST_PER_CLUSTER * clusters:
        return None
    name = how.assignment if how.assignment in READERS else OWN
    found = []
    for number, (back, kept) in enumerate(parts):
        known = torch.from_numpy(embeddings[kept])
        reader = read_clusters(known, name, clusters, how.seed + 1 + number, how.runs).reader
        match = matching(labels[kept], reader(known).argmax(1).numpy())
        soft = np.zeros((len(back), clusters), np.float32)
        q = reader(torch.from_numpy(embeddings[back])).numpy()
        soft[:, : q.shape[1]] = q  # a reader may find fewer
        found.append(HeldBack(back, soft, match[q.argmax(1)] == labels[back], np.full(len(back), number)))
        progress("calibration", number + 1, len(parts))
    return HeldBack(
        *(np.concatenate([getattr(part, field) for part in found]) for field in ("rows", "soft", "agreed", "reader"))
    )


def _parts(patients: NDArray[np.str_], seed: int) -> Iterator[tuple[Labels, Labels]]:
    """Yield rows held back and rows read from; all images of a patient are in one of them, or take no part."""
    _, code, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(counts))
    taking_part = order[np.cumsum(counts[order]) - counts[order] < MOST_IMAGES]
    for repeat in range(REPEATS):
        mixed = np.random.default_rng([seed, repeat]).permutation(taking_part)
        fold_of_patient = np.full(len(counts), -1)
        fold_of_patient[mixed] = np.arange(len(mixed)) % FOLDS
        fold = fold_of_patient[code]
        for number in range(FOLDS):
            yield np.flatnonzero(fold == number), np.flatnonzero((fold >= 0) & (fold != number))
