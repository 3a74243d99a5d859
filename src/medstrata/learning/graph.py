"""Neighbour graph of vectors and its Leiden partition, brought to exactly K clusters.

    Traag, Waltman, van Eck: From Louvain to Leiden. Scientific Reports 9:5233, 2019.

Shapes: N vectors of Z values.
"""

from __future__ import annotations

from collections.abc import Iterable

import graspologic_native
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

NEIGHBOURS = 20
SHARE = 0.1  # of a small set that counts as neighbours: 20 of 18 images would join all with all
EXACT = 50_000  # vectors up to which neighbours are exact
DISTANCES_AT_ONCE = 1 << 25  # 128 MB of float32
TRIALS = 8
SEARCH_STEPS = 30  # bisections of the resolution
OVER = 2  # times as many communities as clusters are sought first
SMALLEST = 0.005  # share of the set that a community needs to count as a cluster of its own
RESOLUTIONS = np.geomspace(0.003, 1.0, 20)  # among which the number of clusters is looked for

Vectors = NDArray[np.floating]
Labels = NDArray[np.int64]


def neighbours(reference: Vectors, vectors: Vectors, count: int) -> NDArray[np.int64]:
    """Return the ``count`` nearest rows of ``reference`` (Euclidean, nearest first) for each vector: (N, count).

    Exact up to ``EXACT`` reference rows, above by a navigable graph (usearch; about 99 % of the neighbours are right).
    """
    count = min(count, len(reference))
    reference, vectors = np.ascontiguousarray(reference, np.float32), np.ascontiguousarray(vectors, np.float32)
    if len(reference) > EXACT:
        from usearch.index import Index

        index = Index(ndim=reference.shape[1], metric="l2sq", dtype="f32", expansion_add=64, expansion_search=64)
        index.add(np.arange(len(reference)), reference, threads=1)  # one thread: the same rows give the same graph
        return index.search(vectors, count, threads=1).keys.astype(np.int64)
    known = torch.from_numpy(reference - reference.mean(0))  # |a|^2 - 2ab + |b|^2 loses digits far from the origin
    asked = torch.from_numpy(vectors - reference.mean(0))
    half_norms = known.square().sum(1) / 2
    parts = []
    for block in asked.split(max(1, DISTANCES_AT_ONCE // len(known))):
        distances = torch.addmm(half_norms, block, known.T, alpha=-1)
        parts.append(distances.topk(count, largest=False).indices)
    return torch.cat(parts).numpy()


def shared_neighbour_graph(vectors: Vectors, count: int | None = None) -> csr_matrix:
    """Return the symmetric graph (N, N) of nearest neighbours, weighted by the Jaccard index of their neighbourhoods.

    ``count``: neighbours of each; None: 20, or a tenth of a small set, at least 3.
    A neighbourhood includes the vector itself. Edges between vectors that share no neighbour have weight 0 and vanish.
    """
    if count is None:
        count = min(NEIGHBOURS, max(3, int(SHARE * len(vectors))))
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


def leiden(graph: csr_matrix, n_clusters: int | None, seed: int) -> Labels:
    """Return the partition (N,) of ``graph`` with exactly ``n_clusters`` clusters (fewer if N is smaller).

    The resolution is bisected towards twice as many communities, and those with the densest connection are merged until
    K are left. Leiden's own K communities are of like size, since its modularity prefers that; merging is free to leave
    a large one beside a small one (digits, by the pixels: accuracy .87 against .76). Leiden depends on its seed: of
    ``TRIALS`` partitions the one with the largest modularity is kept (clothes: accuracy .60 to .67, that one .67).
    None: K is the number that Leiden finds over the widest range of resolutions. Clusters are numbered by size, the
    largest first.
    """
    edges = _edges(graph)
    if n_clusters is None:
        n_clusters = _steadiest(edges, graph.shape[0], seed)
    if n_clusters == 1:
        return np.zeros(graph.shape[0], np.int64)
    found, resolution = _communities(edges, graph.shape[0], OVER * n_clusters, seed * TRIALS)
    best = merge(graph, found, n_clusters)
    for trial in range(1, TRIALS):
        found = _partition(edges, graph.shape[0], resolution, seed * TRIALS + trial)
        other = merge(graph, found, n_clusters)
        if _count(other) == n_clusters and modularity(graph, other) > modularity(graph, best):
            best = other
    return _by_size(best)


def partitions(graph: csr_matrix, numbers: Iterable[int], seed: int) -> dict[int, Labels]:
    """Return a partition (N,) for each of ``numbers`` in one pass: each is the next finer one with clusters merged.

    As ``leiden``, but all numbers come from one set of communities, so that they are nested, and there is one trial.
    """
    descending = sorted(set(numbers), reverse=True)
    labels, _ = _communities(_edges(graph), graph.shape[0], OVER * descending[0], seed)
    found = {}
    for number in descending:
        labels = merge(graph, labels, number)
        found[number] = _by_size(labels)
    return found


def connection(graph: csr_matrix, labels: Labels) -> float:
    """Return how strongly the two clusters are joined that are joined most: 0 not at all, 1 as within a cluster.

    For clusters i and j with the summed weight w_ij of edges between them and n_i, n_j members this is
    (w_ij / n_i n_j) / min(w_ii / n_i^2, w_jj / n_j^2), at most 1; 0 for a single cluster.
    """
    between, sizes = _between(graph, labels), np.bincount(labels).astype(float)
    density = between / np.outer(sizes, sizes)
    inside = np.maximum(np.diag(density), 1e-30)
    ratio = density / np.minimum(inside[:, None], inside[None, :])
    np.fill_diagonal(ratio, 0)
    return float(min(ratio.max(), 1.0))


def modularity(graph: csr_matrix, labels: Labels) -> float:
    """Return Newman's modularity of a partition (N,): the share of edges within clusters, less what chance gives."""
    inside = _between(graph, labels)
    total = max(inside.sum(), 1e-30)
    shares = inside.sum(1) / total
    return float(np.trace(inside) / total - np.square(shares).sum())


def _between(graph: csr_matrix, labels: Labels) -> NDArray[np.float64]:
    """Return the summed weights of the edges between clusters (K, K)."""
    count = _count(labels)
    member = csr_matrix((np.ones(len(labels)), (np.arange(len(labels)), labels)), shape=(len(labels), count))
    return np.asarray((member.T @ graph @ member).toarray(), np.float64)


def _edges(graph: csr_matrix) -> list[tuple[str, str, float]]:
    upper = graph.tocoo()
    above = upper.row < upper.col
    names = [str(number) for number in range(graph.shape[0])]
    columns = (upper.row[above].tolist(), upper.col[above].tolist(), upper.data[above].tolist())
    return [(names[row], names[column], weight) for row, column, weight in zip(*columns, strict=True)]


def _steadiest(edges: list[tuple[str, str, float]], size: int, seed: int) -> int:
    """Return the number of communities, small ones left out, that most of ``RESOLUTIONS`` give; of equals the larger.

    One community over all is what every graph has at a low resolution: it counts only where nothing else is found.
    """
    counts = np.zeros(size + 1, np.int64)
    for resolution in RESOLUTIONS:
        sizes = np.bincount(_partition(edges, size, resolution, seed))
        counts[max(1, int((sizes >= max(2, SMALLEST * size)).sum()))] += 1
    if counts[2:].any():
        counts[1] = 0
    return int(np.flatnonzero(counts == counts.max())[-1])


def _communities(edges: list[tuple[str, str, float]], size: int, wanted: int, seed: int) -> tuple[Labels, float]:
    """Return a Leiden partition of at least ``wanted`` communities (or one of each vector), and its resolution.

    Of those that were tried the one with the fewest communities.
    """
    low, high = 1e-4, 1.0
    while _count(found := _partition(edges, size, high, seed)) < wanted and high < 1e4:
        low, high = high, high * 2
    for _ in range(SEARCH_STEPS):
        if _count(found) == wanted:
            break
        middle = (low * high) ** 0.5
        tried = _partition(edges, size, middle, seed)
        if _count(tried) < wanted:
            low = middle
        else:
            high, found = middle, tried
    return found, high


def _count(labels: Labels) -> int:
    return int(labels.max()) + 1


def _partition(edges: list[tuple[str, str, float]], size: int, resolution: float, seed: int) -> Labels:
    if not edges:
        return np.arange(size)
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


def merge(graph: csr_matrix, labels: Labels, n_clusters: int) -> Labels:
    """Merge the pair of clusters with the largest weight between them over the product of sizes, until K are left.

    ``labels`` (N,) from 0 without gaps; the result (N,) too, with ``n_clusters`` clusters or fewer.
    """
    labels = labels.copy()
    while (count := _count(labels)) > n_clusters:
        between = _between(graph, labels)
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
