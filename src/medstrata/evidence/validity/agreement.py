"""How far two clusterings of the same images agree, as a whole and cluster by cluster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

Labels = NDArray[np.int64]


def overlap(one: Labels, two: Labels) -> NDArray[np.int64]:
    """Return how many images each pair of clusters shares: (K1, K2) for labels (N,) of K1 and of K2 clusters."""
    table = np.zeros((int(one.max()) + 1, int(two.max()) + 1), dtype=np.int64)
    np.add.at(table, (one, two), 1)
    return table


def matching(reference: Labels, other: Labels) -> Labels:
    """Return for each cluster number of ``other`` (N,) that of ``reference`` (N,) it shares most with, -1 for none.

    Each cluster is matched with at most one (Hungarian algorithm). The result covers the numbers of both.
    """
    rows, columns = linear_sum_assignment(table := overlap(reference, other), maximize=True)
    match = np.full(max(table.shape), -1, dtype=np.int64)
    match[columns] = rows
    return match


def matched(reference: Labels, other: Labels) -> Labels:
    """Return ``other`` (N,) with its clusters renumbered as those of ``reference`` (N,), see ``matching``.

    Clusters without a partner get numbers above those of ``reference``.
    """
    match = matching(reference, other)
    alone = np.flatnonzero(match < 0)
    match[alone] = int(reference.max()) + 1 + np.arange(len(alone))
    return match[other]


def jaccard_recovery(reference: Labels, other: Labels, n_clusters: int) -> NDArray[np.float64]:
    """Return how well each of ``n_clusters`` clusters of ``reference`` (N,) is found again in ``other`` (N,).

    (K,): the largest Jaccard index, shared images over images in either, that the cluster has with any cluster of
    ``other``; 0..1, NaN where the cluster has no image. Source: Hennig, Cluster-wise assessment of cluster stability,
    2007, who calls clusters with a mean of .75 or more stable and those below .6 not.
    """
    table = overlap(reference, other)
    either = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    found = np.full(n_clusters, np.nan)
    present = np.flatnonzero(table.sum(1))
    found[present] = (table[present] / np.maximum(either[present], 1)).max(1)
    return found


def agreements(labelings: Sequence[Labels]) -> dict[str, list[float]]:
    """Return ``ari`` and ``ami`` (adjusted Rand index, adjusted mutual information) of every pair of labelings (N,)."""
    pairs = [(one, two) for number, one in enumerate(labelings) for two in labelings[number + 1 :]]
    return {
        "ari": [float(adjusted_rand_score(one, two)) for one, two in pairs],
        "ami": [float(adjusted_mutual_info_score(one, two)) for one, two in pairs],
    }


def image_consensus(reference: Labels, labelings: Sequence[Labels]) -> NDArray[np.float64]:
    """Return the share (N,), 0..1, of ``labelings`` that put an image into the cluster it has in ``reference`` (N,)."""
    share: NDArray[np.float64] = np.mean([matched(reference, one) == reference for one in labelings], axis=0)
    return share


def consensus_matrix(labelings: Sequence[Labels], rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return for each pair of the images ``rows`` (n,) the share (n, n) of labelings that put both into one cluster.

    Source: Monti et al., Consensus clustering, 2003.
    """
    share: NDArray[np.float64] = np.mean([one[rows][:, None] == one[rows][None] for one in labelings], axis=0)
    return share
