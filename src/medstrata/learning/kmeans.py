"""k-means in torch: greedy k-means++ starts, restarts, Lloyd iterations, repair of empty clusters.

Vectors are read block by block, so that they may be an array on disk. Lloyd's algorithm is exact however many blocks
and processes there are. Above ``MOST_EXACT`` vectors it is done on a sample, and mini-batches of all vectors go on from
its centres (Sculley, WWW 2010).

Shapes: N vectors of Z values, K clusters. Distances are squared Euclidean. Where several processes (``comm``) cluster
together, the vectors are spread over them by ``comm.share``, and labels are those of this process's vectors; centres
are the same in all. They exchange sums of K x Z values, not vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from medstrata.learning.comm import ALONE, Comm
from medstrata.learning.nearest import Blocks, lowest, most_alike, nearest, number_of_blocks, sums_by_label

MOST_EXACT = 10_000_000  # vectors up to which every iteration reads all of them
SAMPLE = 500_000  # of more: vectors that the first centres are found on
PASSES = 2  # of mini-batches over all vectors after that
SPHERICAL_ITERATIONS = 10  # as in DeepCluster-v2


@dataclass(frozen=True)
class KMeansResult:
    """``centres`` (K, Z), ``labels`` (N,) int64, ``inertia``: sum of squared distances to the nearest centre."""

    centres: torch.Tensor
    labels: torch.Tensor
    inertia: float


@dataclass(frozen=True)
class Settings:
    """How many clusters, starts and iterations; the processes that cluster together."""

    n_clusters: int
    restarts: int
    iterations: int
    comm: Comm


def kmeans(
    vectors: torch.Tensor | NDArray[np.floating[Any]],
    n_clusters: int,
    generator: torch.Generator,
    restarts: int = 20,
    iterations: int = 100,
    comm: Comm = ALONE,
) -> KMeansResult:
    """Return the best of ``restarts`` runs of Lloyd's algorithm on ``vectors`` (N, Z), N >= n_clusters >= 1.

    Each run starts from greedy k-means++ centres and ends when no label changes or after ``iterations``. An array, such
    as a memory map, is never all in memory.
    """
    about_mean = centred(vectors, comm)
    method = _approximate if comm.count(about_mean) > MOST_EXACT else _exact
    best = method(about_mean, Settings(n_clusters, restarts, iterations, comm), generator)
    return KMeansResult(best.centres + about_mean.offset, best.labels, best.inertia)


def centred(vectors: torch.Tensor | NDArray[np.floating[Any]], comm: Comm = ALONE) -> Blocks:
    """Return ``vectors`` (n, Z) less their mean over all processes: |a|^2 - 2ab + |b|^2 loses digits elsewhere."""
    read = vectors.__getitem__ if isinstance(vectors, torch.Tensor) else partial(_read, vectors)
    stored = Blocks(read, len(vectors))
    sums = torch.stack([block.double().sum(0) for block in stored]).sum(0)
    return Blocks(read, len(vectors), (comm.total(sums) / comm.count(stored)).to(stored[:1]))


def _read(array: NDArray[np.floating[Any]], rows: Any) -> torch.Tensor:
    # A copy: torch does not take memory that cannot be written, and numpy takes a tensor of one number for the number.
    return torch.from_numpy(np.array(array[rows.numpy() if isinstance(rows, torch.Tensor) else rows]))


def mean_over_all(vectors: torch.Tensor, comm: Comm) -> torch.Tensor:
    """Return the mean (Z,) of the vectors (n, Z) of all processes."""
    return comm.total(vectors.sum(0)) / comm.count(vectors)


def _exact(vectors: Blocks, settings: Settings, generator: torch.Generator) -> KMeansResult:
    runs = [_lloyd(vectors, _start(vectors, settings, generator), settings) for _ in range(settings.restarts)]
    return min(runs, key=lambda run: run.inertia)


def _approximate(vectors: Blocks, settings: Settings, generator: torch.Generator) -> KMeansResult:
    """Lloyd's algorithm on a sample, then mini-batches: a block of each process, blocks in random order."""
    comm, count = settings.comm, settings.comm.count(vectors)
    drawn = torch.randint(count, (min(SAMPLE, count),), generator=generator).sort().values
    sample = comm.rows(vectors, drawn, count)[comm.share(len(drawn))]
    found = _exact(Blocks(sample.__getitem__, len(sample)), settings, generator)
    centres, counts = found.centres, comm.total(torch.bincount(found.labels, minlength=settings.n_clusters))
    steps = number_of_blocks(count // comm.world + 1)  # shares differ by one vector: the last block may be empty
    for _ in range(PASSES):
        for number in torch.randperm(steps, generator=generator).tolist():
            block = vectors.block(number)
            labels = nearest(block, centres)[0]
            added = comm.total(torch.bincount(labels, minlength=len(centres)))
            sums = comm.total(sums_by_label(block, labels, len(centres)))
            counts = counts + added
            # Each centre moves to the mean of all vectors that it has been given so far.
            centres = centres + (sums - added[:, None] * centres) / counts.clamp_min(1)[:, None]
    return _result(_look(vectors, centres), centres, comm)


@dataclass(frozen=True)
class _Look:
    """One reading of all vectors: nearest centres (n,), squared distances (n,), sums (K, Z) of each cluster."""

    labels: torch.Tensor
    distances: torch.Tensor
    sums: torch.Tensor


def _look(vectors: Blocks, centres: torch.Tensor) -> _Look:
    half_squares, sums = centres.square().sum(1) / 2, torch.zeros_like(centres)
    labels, halves = [], []
    for block in vectors:
        found = lowest(block, centres, half_squares)
        sums += sums_by_label(block, found[0], len(centres))
        labels.append(found[0])
        halves.append(found[1])
    return _Look(torch.cat(labels), (vectors.squares + 2 * torch.cat(halves)).clamp_min(0), sums)


def _result(look: _Look, centres: torch.Tensor, comm: Comm) -> KMeansResult:
    return KMeansResult(centres, look.labels, float(comm.total(look.distances.double().sum())))


def _start(vectors: Blocks, settings: Settings, generator: torch.Generator) -> torch.Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007): of a few candidates drawn by distance, keep the best."""
    comm, count = settings.comm, settings.comm.count(vectors)
    trials = 2 + int(torch.tensor(float(settings.n_clusters)).log())
    centres = [comm.rows(vectors, torch.randint(count, (1,), generator=generator), count)[0]]
    closest = torch.cat([(block - centres[0]).square().sum(1) for block in vectors])
    for _ in range(1, settings.n_clusters):
        candidates = comm.rows(vectors, _draw(closest, trials, count, generator, comm), count)
        options = torch.minimum(closest, _distances(vectors, candidates))
        best = int(comm.total(options.sum(1)).argmin())
        closest = options[best]
        centres.append(candidates[best])
    return torch.stack(centres)


def _distances(vectors: Blocks, candidates: torch.Tensor) -> torch.Tensor:
    """Squared distances (m, n) of a few candidates (m, Z) to all vectors."""
    squares = candidates.square().sum(1, keepdim=True)
    products = torch.cat([candidates @ block.T for block in vectors], dim=1)
    return torch.add(squares + vectors.squares, products, alpha=-2).clamp_min_(0)


def _draw(weights: torch.Tensor, trials: int, count: int, generator: torch.Generator, comm: Comm) -> torch.Tensor:
    """Draw numbers (trials,) of the ``count`` vectors with probabilities in proportion to ``weights`` (n,)."""
    cumulative = weights.double().cumsum(0)
    draws = torch.rand(trials, generator=generator, dtype=torch.float64).to(weights.device)
    draws = draws * comm.total(cumulative[-1]) - comm.before(cumulative[-1])
    # As many vectors as lie below a draw in each process: together, the number of the vector that is drawn.
    return comm.total(torch.searchsorted(cumulative, draws)).clamp_max(count - 1)


def _lloyd(vectors: Blocks, centres: torch.Tensor, settings: Settings) -> KMeansResult:
    labels = torch.full((len(vectors),), -1, dtype=torch.int64, device=centres.device)
    for _ in range(settings.iterations):
        look = _look(vectors, centres)
        if not settings.comm.any(not torch.equal(look.labels, labels)):
            return _result(look, centres, settings.comm)
        labels = look.labels
        centres = _means(vectors, look, settings.comm)
    return _result(_look(vectors, centres), centres, settings.comm)


def _means(vectors: Blocks, look: _Look, comm: Comm) -> torch.Tensor:
    """Return the clusters' means; an empty cluster takes the vector that is farthest from its centre."""
    counts = comm.total(torch.bincount(look.labels, minlength=len(look.sums)))
    centres = comm.total(look.sums) / counts.clamp_min(1)[:, None]
    empty = torch.nonzero(counts == 0).flatten()
    if len(empty):
        centres[empty] = _outermost(vectors, look.distances, len(empty), comm)
    return centres


def _outermost(vectors: Blocks | torch.Tensor, distances: torch.Tensor, count: int, comm: Comm) -> torch.Tensor:
    """Return the ``count`` vectors (count, Z) of all processes with the largest ``distances`` (n,), largest first."""
    own = distances.topk(min(count, len(distances)))
    order = comm.gather(own.values).argsort(descending=True, stable=True)
    return comm.gather(vectors[own.indices])[order[:count]]


ELBOW_RANGE = (2, 20)
ELBOW_RESTARTS = 5


def elbow(vectors: torch.Tensor, generator: torch.Generator, comm: Comm = ALONE) -> int:
    """Return the number of clusters at the elbow of the inertia over K = 2 .. 20 (at most N).

    The elbow is the K whose inertia lies farthest below the straight line from the first to the last (Satopaa et al.
    2011); where none lies below it, the middle of the range.
    """
    low, high = ELBOW_RANGE[0], min(ELBOW_RANGE[1], comm.count(vectors))
    if high <= low:
        return max(1, high)
    inertias = [kmeans(vectors, k, generator, ELBOW_RESTARTS, comm=comm).inertia for k in range(low, high + 1)]
    curve = torch.tensor(inertias, dtype=torch.float64)
    chord = torch.linspace(float(curve[0]), float(curve[-1]), len(curve), dtype=torch.float64)
    below = chord - curve
    return low + (int(below.argmax()) if below.max() > 1e-9 * curve[0] else (high - low) // 2)


def spherical_kmeans(
    directions: torch.Tensor, count: int, generator: torch.Generator, restarts: int = 1, comm: Comm = ALONE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cluster unit vectors (N, Z) by their cosines, 10 iterations from random members, the best of ``restarts``.

    Returns prototypes (count, Z) of length 1 and labels (N,). An empty cluster takes the vector that is least like its
    own prototype.
    """
    best: tuple[float, torch.Tensor, torch.Tensor] | None = None
    total_count = comm.count(directions)
    for _ in range(restarts):
        chosen = torch.randperm(total_count, generator=generator)[:count]
        prototypes = comm.rows(directions, chosen.to(directions.device), total_count)
        for _ in range(SPHERICAL_ITERATIONS):
            labels, similarity = most_alike(directions, prototypes)
            sums = comm.total(sums_by_label(directions, labels, count))
            empty = torch.nonzero(comm.total(torch.bincount(labels, minlength=count)) == 0).flatten()
            if len(empty):
                sums[empty] = _outermost(directions, -similarity, len(empty), comm)
            prototypes = normalize(sums)
        labels, similarity = most_alike(directions, prototypes)
        total = float(comm.total(similarity.double().sum()))
        if best is None or total > best[0]:
            best = (total, prototypes, labels)
    assert best is not None  # restarts is at least 1
    return best[1], best[2]
