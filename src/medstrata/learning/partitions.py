"""Partitions about centres for a range of numbers of clusters, and the valley that must lie between two clusters.

Shapes: N vectors of Z values, K clusters.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

ITERATIONS = 30  # of Lloyd's algorithm from the tree's clusters
RESTARTS = 1  # of k-means from drawn centres, beside the one from the tree
SMOOTHING = 0.15  # width of the kernel, as a share of the distance between two centres
STEPS = 21  # places on the way from one cluster to the other where the density is measured
ENDS = 5  # of these at either end where its top is looked for

Vectors = NDArray[np.floating]
Labels = NDArray[np.int64]


def centre_partitions(vectors: Vectors, numbers: Iterable[int], seed: int) -> dict[int, Labels]:
    """Return a k-means partition (N,) of ``vectors`` for each of ``numbers`` (each at least 1 and at most N).

    Lloyd's algorithm starts from the clusters of one Ward tree, which serves all numbers, and ``RESTARTS`` times from
    drawn centres; the best is kept. From drawn centres alone the same groups are found less often.
    """
    wanted = sorted(set(numbers))
    tree = cut_tree(linkage(vectors, "ward"), wanted) if len(vectors) > 1 else np.zeros((1, len(wanted)), np.int64)
    return {
        number: _best(vectors, tree[:, column].astype(np.int64), number, seed) for column, number in enumerate(wanted)
    }


def centres(vectors: Vectors, labels: Labels) -> Vectors:
    """Return the means (K, Z) of the clusters; none of them may be empty."""
    sums = np.zeros((int(labels.max()) + 1, vectors.shape[1]))
    np.add.at(sums, labels, vectors)
    means: Vectors = sums / np.bincount(labels)[:, None]
    return means


def nearest_centre(vectors: Vectors, known: Vectors) -> Labels:
    """Return the nearest of the centres ``known`` (K, Z) for each vector: (N,)."""
    nearest: Labels = cdist(vectors, known, "sqeuclidean").argmin(1)
    return nearest


def scatter(vectors: Vectors, labels: Labels) -> float:
    """Return the sum of squared distances of ``vectors`` to the mean of their cluster."""
    return float(np.square(vectors - centres(vectors, labels)[labels]).sum())


def valley(vectors: Vectors, labels: Labels) -> float:
    """Return how deep the shallowest valley between two clusters is: 0 empty, 1 no valley; 0 for a single cluster.

    For each pair of clusters their members are projected on the line between the two means, each mean taken without the
    member itself, since in many dimensions a mean follows its own members and any cut looks like a gap. The number is
    the lowest density between the two tops over the density at the lower top (kernel density), of the worst pair.
    A cluster of one member has no density: 1.
    """
    sizes = np.bincount(labels)
    if sizes.min() < 2:
        return 1.0
    sums = centres(vectors, labels) * sizes[:, None]
    pairs = [(i, j) for i in range(len(sizes)) for j in range(i)]
    return max((_pair_valley(vectors, labels, sums, pair) for pair in pairs), default=0.0)


def _pair_valley(vectors: Vectors, labels: Labels, sums: Vectors, pair: tuple[int, int]) -> float:
    members = np.flatnonzero(np.isin(labels, pair))
    x, own = vectors[members], labels[members]
    without = [_mean_without(x, own == cluster, sums[cluster]) for cluster in pair]
    way = without[1] - without[0]
    length = np.maximum(np.square(way).sum(1), 1e-30)
    along = ((x - without[0]) * way).sum(1) / length
    places = np.linspace(np.median(along[own == pair[0]]), np.median(along[own == pair[1]]), STEPS)
    density = np.exp(-0.5 * np.square((along[None] - places[:, None]) / SMOOTHING)).mean(1)
    top = min(density[: ENDS + 1].max(), density[-ENDS - 1 :].max())
    return float(min(density[ENDS:-ENDS].min() / max(top, 1e-30), 1.0))


def _mean_without(x: Vectors, inside: NDArray[np.bool_], total: Vectors) -> Vectors:
    """Return for each row of x the mean of a cluster with this ``total`` of members, without the row itself."""
    mean: Vectors = (total - x * inside[:, None]) / (inside.sum() - inside)[:, None]
    return mean


def _best(vectors: Vectors, start: Labels, number: int, seed: int) -> Labels:
    from_tree = _lloyd(vectors, start)
    if number == 1:
        return from_tree
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different vectors than clusters
        drawn = KMeans(number, n_init=RESTARTS, random_state=seed).fit(vectors)
    better = len(np.unique(drawn.labels_)) == number and drawn.inertia_ < scatter(vectors, from_tree)
    return drawn.labels_.astype(np.int64) if better else from_tree


def _lloyd(vectors: Vectors, labels: Labels) -> Labels:
    for _ in range(ITERATIONS):
        found = nearest_centre(vectors, centres(vectors, labels))
        if np.array_equal(found, labels) or len(np.unique(found)) <= labels.max():
            break  # settled, or a cluster would run empty
        labels = found
    return labels
