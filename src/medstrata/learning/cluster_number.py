"""How many clusters an embedding has: the measured rule behind ``n_clusters="auto"``.

Four criteria that fail in different places: the valley between clusters about centres, prediction strength, the
Bayesian information criterion of a Gaussian mixture, and the connection between communities of the neighbour graph. How
often each is right on planted and real sets is in docs/number-of-clusters.md. Shapes: N embeddings of Z values.
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
from medstrata.learning.prediction_strength import prediction_strength

MOST = 2000  # images that the criteria look at
MOST_IN_GRAPH = 10_000  # images that the connection looks at: communities part more clearly the more images there are
AXES = 50  # principal axes of the embedding that they look at
MIXTURE_AXES = 16  # of the directions, for the mixtures
NUMBERS = range(1, 21)  # that "auto" chooses among
DEEP = 0.45  # density in a valley below which it counts, as a share of the lower top
STRONG = 0.8  # prediction strength that counts (Tibshirani and Walther 2005)
MANY = 5000  # images from which on "auto" trusts the connection
LOOSE = 0.15  # share of the connection in a surrogate without groups below which two communities count as two
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
    """Return a surrogate (N, Z) without groups: vectors of the one Gaussian with the variances of ``axes`` (N, Z)."""
    drawn: Vectors = generator.standard_normal(axes.shape) * axes.std(0)
    return drawn


def possible(numbers: Iterable[int], count: int) -> list[int]:
    """Return those of ``numbers`` in order that ``count`` images can be divided into, three a cluster; 1 always."""
    return sorted({1} | {number for number in numbers if 1 < number <= count // 3})


def by_valley(vectors: Vectors, found: dict[int, Labels]) -> Criterion:
    """The largest K of ``found`` at which a valley parts every two clusters (``learning.partitions.valley``)."""
    values = tuple(valley(vectors, labels) for labels in found.values())
    return Criterion(values, max(k for k, value in zip(found, values, strict=True) if value < DEEP))


def by_prediction_strength(vectors: Vectors, patients: Labels, numbers: list[int], seed: int) -> Criterion:
    """The largest K whose prediction strength (``learning.prediction_strength``) is at least ``STRONG``."""
    values = prediction_strength(vectors, patients, numbers, seed)
    return Criterion(values, max(k for k, value in zip(numbers, values, strict=True) if value >= STRONG or k == 1))


def by_mixture(vectors: Vectors, found: dict[int, Labels]) -> Criterion:
    """The K with the smallest Bayesian information criterion of a Gaussian mixture (Schwarz 1978).

    Components have a variance per axis. The mixture of K starts from the partition ``found`` of K.
    """
    axes = principal(vectors)[:, :MIXTURE_AXES]
    values = tuple(_bic(axes, labels) for labels in found.values())
    return Criterion(values, list(found)[int(np.argmin(values))])


def by_connection(axes: Vectors, numbers: list[int], seed: int) -> Criterion:
    """The largest K at which no two communities are joined more than ``LOOSE`` times as in a surrogate without groups.

    The values are the connection (``learning.graph.connection``) over that of the surrogates: about 1 without groups.
    """
    chance = np.random.default_rng(seed)
    own = _connections(directions(axes), numbers, seed)
    drawn = [_connections(directions(one_gaussian(axes, chance)), numbers, seed) for _ in range(SURROGATES)]
    values = tuple((own / np.maximum(np.mean(drawn, 0), 1e-12)).tolist())
    return Criterion(values, max(k for k, value in zip(numbers, values, strict=True) if value < LOOSE))


def round_criteria(axes: Vectors, patients: Labels, found: dict[int, Labels], seed: int) -> dict[str, Criterion]:
    """Return valley, prediction strength and mixture by name: the criteria of clusters about centres.

    ``axes`` (N, Z): ``principal``; ``patients`` (N,): whose image each is; ``found``: a partition of their directions
    for each number.
    """
    vectors = directions(axes)
    return {
        "valley": by_valley(vectors, found),
        "prediction strength": by_prediction_strength(vectors, patients, list(found), seed),
        "mixture": by_mixture(vectors, found),
    }


def agreed(criteria: dict[str, Criterion]) -> int:
    """Return the number that the four criteria together give.

    Where a valley parts clusters about centres: the middle one of valley, prediction strength and mixture, so that two
    that agree decide. Where none does, clusters are not round or there are none: what the graph's communities give,
    which follow any shape.
    """
    if criteria["valley"].recommended == 1:
        return criteria["connection"].recommended
    return _middle(criteria)


def separated_clusters(z: Vectors, seed: int) -> int:
    """Return the number of clusters of embeddings z (N, Z) by ``agreed``, one of ``NUMBERS``; 1: none is told.

    Where clusters are not round and there are fewer than ``MANY`` images it is 1: on so few images of real classes the
    connection is right less often than the plain number of communities (docs/number-of-clusters.md). At most ``MOST``
    images at random are looked at, for the connection ``MOST_IN_GRAPH``.
    """
    some = _sample(z, MOST, seed)
    axes, numbers = principal(some), possible(NUMBERS, len(some))
    if axes.shape[1] == 0 or numbers == [1]:
        return 1
    found = centre_partitions(directions(axes), numbers, seed)
    if by_valley(directions(axes), found).recommended == 1:  # the other two would not be asked
        if len(z) < MANY:
            return 1
        return by_connection(principal(_sample(z, MOST_IN_GRAPH, seed)), numbers, seed).recommended
    patients = np.arange(len(some))  # each image its own: whose it is, is not known here
    return _middle(round_criteria(axes, patients, found, seed))


def _middle(criteria: dict[str, Criterion]) -> int:
    return sorted(criteria[name].recommended for name in ("valley", "prediction strength", "mixture"))[1]


def _sample(z: Vectors, most: int, seed: int) -> Vectors:
    if len(z) <= most:
        return z
    chosen: Vectors = z[np.sort(np.random.default_rng(seed).choice(len(z), most, replace=False))]
    return chosen


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
