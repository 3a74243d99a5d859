"""How many clusters an embedding has: the measured rule behind ``n_clusters="auto"``.

Three criteria that fail in different places: the valley between clusters about centres, the connection between
communities of the neighbour graph, and the Bayesian information criterion of a Gaussian mixture. Their rates of right
answers on planted and real sets are in docs/number-of-clusters.md. Shapes: N embeddings of Z values.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from medstrata.learning.graph import connection, partitions, shared_neighbour_graph
from medstrata.learning.partitions import centre_partitions, centres, valley

MOST = 2000  # images that the criteria look at
AXES = 50  # principal axes of the embedding that they look at
MIXTURE_AXES = 16  # of the directions, for the mixtures
DEEP = 0.4  # a valley at most so shallow counts
LOOSE = 0.5  # share of the connection in a surrogate without groups, below which two communities count as two
SURROGATES = 2
FLOOR = 1e-3  # of a mixture's variances, relative to the smallest of all vectors

Vectors = NDArray[np.floating]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Criterion:
    """``values``: one per number of clusters; ``recommended``: the number that the criterion gives by its own rule."""

    values: tuple[float, ...]
    recommended: int


def principal(z: Vectors) -> Vectors:
    """Return embeddings (N, Z) on their first ``AXES`` principal axes, centred, without axes that hold nothing."""
    centred = np.asarray(z, np.float64) - np.asarray(z, np.float64).mean(0)
    u, scale, _ = np.linalg.svd(centred, full_matrices=False)
    used = scale[:AXES] > 1e-9 * max(float(scale[0]), 1e-300)
    axes: Vectors = (u * scale)[:, :AXES][:, used]
    return axes


def directions(axes: Vectors) -> Vectors:
    """Return vectors (N, Z) from their mean, each of length 1."""
    centred = axes - axes.mean(0)
    unit: Vectors = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return unit


def one_gaussian(axes: Vectors, generator: np.random.Generator) -> Vectors:
    """Return as many vectors from the one Gaussian with the variances of ``axes`` (N, Z), a surrogate without groups."""
    drawn: Vectors = generator.standard_normal(axes.shape) * axes.std(0)
    return drawn


def possible(numbers: Iterable[int], count: int) -> list[int]:
    """Return those of ``numbers`` in order that ``count`` images can be divided into, three a cluster; 1 always."""
    return sorted({1} | {number for number in numbers if 1 < number <= count // 3})


def by_valley(vectors: Vectors, found: dict[int, Labels]) -> Criterion:
    """The largest K of ``found`` at which a valley parts every two clusters (``learning.partitions.valley``)."""
    values = tuple(valley(vectors, labels) for labels in found.values())
    return Criterion(values, max(k for k, value in zip(found, values, strict=True) if value < DEEP))


def by_connection(axes: Vectors, numbers: list[int], seed: int) -> Criterion:
    """The largest K at which no two communities are joined more than half as strongly as in a surrogate without groups.

    The values are the connection (``learning.graph.connection``) over that of the surrogates: about 1 without groups.
    """
    generator = np.random.default_rng(seed)
    own = _connections(directions(axes), numbers, seed)
    none = np.mean(
        [_connections(directions(one_gaussian(axes, generator)), numbers, seed) for _ in range(SURROGATES)], 0
    )
    values = tuple((own / np.maximum(none, 1e-12)).tolist())
    return Criterion(values, max(k for k, value in zip(numbers, values, strict=True) if value < LOOSE))


def by_mixture(vectors: Vectors, found: dict[int, Labels]) -> Criterion:
    """The K with the smallest Bayesian information criterion of a Gaussian mixture (Schwarz 1978).

    Components have a variance per axis. The mixture of K starts from the partition ``found`` of K.
    """
    axes = principal(vectors)[:, :MIXTURE_AXES]
    values = tuple(_bic(axes, labels) for labels in found.values())
    return Criterion(values, list(found)[int(np.argmin(values))])


def agreed(by_valley: int, by_connection: int, by_mixture: int) -> int:
    """Return the number that the three criteria together give.

    Where a valley parts clusters about centres: the middle one of the three, so that two that agree decide. Where none
    does, clusters are not round or there are none: what the graph says, which follows any shape.
    """
    if by_valley == 1:
        return by_connection
    return sorted((by_valley, by_connection, by_mixture))[1]


def separated_clusters(z: Vectors, numbers: Iterable[int], seed: int) -> int:
    """Return the number of clusters of embeddings z (N, Z) that ``agreed`` gives, one of ``numbers`` or 1.

    At most ``MOST`` images at random are looked at.
    """
    if len(z) > MOST:
        z = z[np.sort(np.random.default_rng(seed).choice(len(z), MOST, replace=False))]
    axes = principal(z)
    wanted = possible(numbers, len(z))
    if axes.shape[1] == 0 or wanted == [1]:
        return 1
    vectors = directions(axes)
    found = centre_partitions(vectors, wanted, seed)
    return agreed(
        by_valley(vectors, found).recommended,
        by_connection(axes, wanted, seed).recommended,
        by_mixture(vectors, found).recommended,
    )


def _connections(vectors: Vectors, numbers: list[int], seed: int) -> NDArray[np.float64]:
    graph: csr_matrix = shared_neighbour_graph(vectors)
    found = partitions(graph, numbers, seed)
    return np.array([connection(graph, found[number]) for number in numbers])


def _bic(axes: Vectors, labels: Labels) -> float:
    means = centres(axes, labels)
    floor = max(FLOOR * float(axes.var(0).min()), 1e-12)
    spread = centres(np.square(axes - means[labels]), labels) + floor
    mixture = GaussianMixture(
        len(means),
        covariance_type="diag",
        reg_covar=floor,
        init_params="random_from_data",
        weights_init=np.bincount(labels) / len(labels),
        means_init=means,
        precisions_init=1 / spread,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly settled is enough to compare
        return float(mixture.fit(axes).bic(axes))
