"""Neighbour graph of vectors and its Leiden partition, brought to exactly K clusters.

    Traag, Waltman, van Eck: From Louvain to Leiden. Scientific Reports 9:5233, 2019.

Shapes: N vectors of Z values.
"""

from __future__ import annotations

import graspologic_native
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 20
SEARCH_STEPS = 30  # bisections of the resolution

Vectors = NDArray[np.floating]
Labels = NDArray[np.int64]


def neighbours(reference: Vectors, vectors: Vectors, count: int) -> NDArray[np.int64]:
    """Return the ``count`` nearest rows of ``reference`` (Euclidean, exact) for each row of ``vectors``: (N, count)."""
    search = NearestNeighbors(n_neighbors=min(count, len(reference)), algorithm="brute").fit(reference)
    return search.kneighbors(vectors, return_distance=False)  # type: ignore[no-any-return]


def shared_neighbour_graph(vectors: Vectors, count: int = NEIGHBOURS) -> csr_matrix:
    """Return the symmetric graph (N, N) of nearest neighbours, weighted by the Jaccard index of their neighbourhoods.

    A neighbourhood includes the vector itself. Edges between vectors that share no neighbour have weight 0 and vanish.
    """
    near = neighbours(vectors, vectors, count + 1)
    size, width = near.shape
    rows = np.repeat(np.arange(size), width)
    hood = csr_matrix((np.ones(size * width, np.float32), (rows, near.ravel())), shape=(size, size))
    hood.data[:] = 1
    adjacency = ((hood + hood.T) > 0).astype(np.float32)
    shared = (hood @ hood.T).multiply(adjacency).tocsr()
    own = np.asarray(hood.sum(1)).ravel()
    shared = shared.tocoo()
    weights = shared.data / (own[shared.row] + own[shared.col] - shared.data)
    graph = csr_matrix((weights, (shared.row, shared.col)), shape=(size, size))
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph


def leiden(graph: csr_matrix, n_clusters: int, seed: int) -> Labels:
    """Return the Leiden partition (N,) of ``graph`` with exactly ``n_clusters`` clusters (fewer if N is smaller).

    The resolution is bisected towards K. Where it jumps over K, the partition just above is merged: again and again
    the two clusters with the densest connection become one. Clusters are numbered by size, the largest first.
    """
    upper = graph.tocoo()
    above = upper.row < upper.col
    edges = [
        (str(row), str(column), float(weight))
        for row, column, weight in zip(upper.row[above], upper.col[above], upper.data[above], strict=True)
    ]
    low, high = 1e-4, 1.0
    while _count(found := _partition(edges, graph.shape[0], high, seed)) < n_clusters and high < 1e4:
        low, high = high, high * 2
    for _ in range(SEARCH_STEPS):
        if _count(found) == n_clusters:
            break
        middle = (low * high) ** 0.5
        tried = _partition(edges, graph.shape[0], middle, seed)
        if _count(tried) < n_clusters:
            low = middle
        else:
            high, found = middle, tried
    return _by_size(_merge(graph, found, n_clusters))


def _count(labels: Labels) -> int:
    return int(labels.max()) + 1


def _partition(edges: list[tuple[str, str, float]], size: int, resolution: float, seed: int) -> Labels:
    _, found = graspologic_native.leiden(
        edges=edges,
        starting_communities=None,
        resolution=resolution,
        randomness=0.001,
        iterations=2,
        use_modularity=True,
        seed=seed,
        trials=1,
    )
    labels = np.full(size, -1, np.int64)
    for node, community in found.items():
        labels[int(node)] = community
    alone = labels < 0  # vectors without any edge: a cluster each, merged below
    labels[alone] = labels.max() + 1 + np.arange(alone.sum())
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _merge(graph: csr_matrix, labels: Labels, n_clusters: int) -> Labels:
    """Merge the pair of clusters with the largest weight between them over the product of sizes, until K are left."""
    labels = labels.copy()
    while (count := _count(labels)) > n_clusters:
        member = csr_matrix((np.ones(len(labels)), (np.arange(len(labels)), labels)), shape=(len(labels), count))
        between = (member.T @ graph @ member).toarray()
        sizes = np.bincount(labels, minlength=count).astype(float)
        density = between / np.outer(sizes, sizes)
        np.fill_diagonal(density, -1)
        if density.max() <= 0:  # nothing is connected: join the two smallest
            first, second = np.argsort(sizes)[:2]
        else:
            first, second = np.unravel_index(density.argmax(), density.shape)
        labels[labels == second] = first
        labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return labels


def _by_size(labels: Labels) -> Labels:
    order = np.argsort(-np.bincount(labels), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[labels].astype(np.int64)
