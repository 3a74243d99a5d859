"""k-means in torch: greedy k-means++ starts, restarts, Lloyd iterations, repair of empty clusters.

Shapes: N vectors of Z values, K clusters. Distances are squared Euclidean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

BLOCK = 1 << 14  # rows whose distances to all centres are held at once
SPHERICAL_ITERATIONS = 10  # as in DeepCluster-v2


@dataclass(frozen=True)
class KMeansResult:
    """``centres`` (K, Z), ``labels`` (N,) int64, ``inertia``: sum of squared distances to the nearest centre."""

    centres: torch.Tensor
    labels: torch.Tensor
    inertia: float


def kmeans(
    vectors: torch.Tensor, n_clusters: int, generator: torch.Generator, restarts: int = 20, iterations: int = 100
) -> KMeansResult:
    """Return the best of ``restarts`` runs of Lloyd's algorithm on ``vectors`` (N, Z), N >= n_clusters >= 1.

    Each run starts from greedy k-means++ centres and ends when no label changes or after ``iterations``.
    """
    offset = vectors.mean(0)
    centred = vectors - offset  # |a|^2 - 2ab + |b|^2 loses digits far from the origin
    runs = [_lloyd(centred, _start(centred, n_clusters, generator), iterations) for _ in range(restarts)]
    best = min(runs, key=lambda run: run.inertia)
    return KMeansResult(best.centres + offset, best.labels, best.inertia)


def nearest(vectors: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest centre's index (N,) and squared distance (N,) for each vector."""
    labels, distances = [], []
    half_norms = centres.square().sum(1) / 2
    for block in vectors.split(BLOCK):
        # |v - c|^2 / 2 without |v|^2 / 2, which is the same for every centre
        distance, label = torch.addmm(half_norms, block, centres.T, alpha=-1).min(1)
        labels.append(label)
        distances.append((2 * distance + block.square().sum(1)).clamp_min(0))
    return torch.cat(labels), torch.cat(distances)


def _start(vectors: torch.Tensor, n_clusters: int, generator: torch.Generator) -> torch.Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007): of a few candidates drawn by distance, keep the best."""
    trials = 2 + int(torch.tensor(float(n_clusters)).log())
    first = int(torch.randint(len(vectors), (1,), generator=generator))
    centres = [vectors[first]]
    closest = (vectors - vectors[first]).square().sum(1)
    for _ in range(1, n_clusters):
        cumulative = closest.double().cumsum(0)
        draws = torch.rand(trials, generator=generator, dtype=torch.float64).to(vectors.device) * cumulative[-1]
        candidates = torch.searchsorted(cumulative, draws).clamp_max(len(vectors) - 1)
        options = (
            torch.minimum(closest, (vectors[None] - vectors[candidates][:, None]).square().sum(2))
            if (trials * vectors.numel() < 1 << 24)
            else torch.stack([torch.minimum(closest, (vectors - vectors[c]).square().sum(1)) for c in candidates])
        )
        best = int(options.sum(1).argmin())
        closest = options[best]
        centres.append(vectors[candidates[best]])
    return torch.stack(centres)


def _lloyd(vectors: torch.Tensor, centres: torch.Tensor, iterations: int) -> KMeansResult:
    labels = torch.full((len(vectors),), -1, dtype=torch.int64, device=vectors.device)
    for _ in range(iterations):
        found, distances = nearest(vectors, centres)
        if torch.equal(found, labels):
            break
        labels = found
        centres = _means(vectors, labels, distances, len(centres))
    labels, distances = nearest(vectors, centres)
    return KMeansResult(centres, labels, float(distances.double().sum()))


def _means(vectors: torch.Tensor, labels: torch.Tensor, distances: torch.Tensor, n_clusters: int) -> torch.Tensor:
    """Return the clusters' means; an empty cluster takes the vector that is farthest from its centre."""
    counts = torch.bincount(labels, minlength=n_clusters)
    sums = torch.zeros(n_clusters, vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
    centres = sums.index_add_(0, labels, vectors) / counts.clamp_min(1)[:, None]
    empty = torch.nonzero(counts == 0).flatten()
    if len(empty):
        centres[empty] = vectors[distances.topk(len(empty)).indices]
    return centres


ELBOW_RANGE = (2, 20)
ELBOW_RESTARTS = 5


def elbow(vectors: torch.Tensor, generator: torch.Generator) -> int:
    """Return the number of clusters at the elbow of the inertia over K = 2 .. 20 (at most N).

    The elbow is the K whose inertia lies farthest below the straight line from the first to the last (Satopaa et al.
    2011); where none lies below it, the middle of the range.
    """
    low, high = ELBOW_RANGE[0], min(ELBOW_RANGE[1], len(vectors))
    if high <= low:
        return max(1, high)
    inertias = [kmeans(vectors, k, generator, ELBOW_RESTARTS).inertia for k in range(low, high + 1)]
    curve = torch.tensor(inertias, dtype=torch.float64)
    chord = torch.linspace(float(curve[0]), float(curve[-1]), len(curve), dtype=torch.float64)
    below = chord - curve
    return low + (int(below.argmax()) if below.max() > 1e-9 * curve[0] else (high - low) // 2)


def spherical_kmeans(
    directions: torch.Tensor, count: int, generator: torch.Generator, restarts: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cluster unit vectors (N, Z) by their cosines, 10 iterations from random members, the best of ``restarts``.

    Returns prototypes (count, Z) of length 1 and labels (N,). An empty cluster takes the vector that is least like its
    own prototype.
    """
    best: tuple[float, torch.Tensor, torch.Tensor] | None = None
    for _ in range(restarts):
        chosen = torch.randperm(len(directions), generator=generator)[:count]
        prototypes = directions[chosen.to(directions.device)]
        for _ in range(SPHERICAL_ITERATIONS):
            similarity, labels = (directions @ prototypes.T).max(1)
            sums = torch.zeros_like(prototypes).index_add_(0, labels, directions)
            empty = torch.nonzero(torch.bincount(labels, minlength=count) == 0).flatten()
            sums[empty] = directions[similarity.topk(len(empty), largest=False).indices]
            prototypes = normalize(sums)
        similarity, labels = (directions @ prototypes.T).max(1)
        total = float(similarity.double().sum())
        if best is None or total > best[0]:
            best = (total, prototypes, labels)
    assert best is not None  # restarts is at least 1
    return best[1], best[2]
