"""Two clusterings of the same images: which clusters belong together, how far they agree, which images moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from medstrata.errors import InputError
from medstrata.evidence.metrics import REJECTED

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """A cluster of the first run and the one of the second that it is matched with.

    ``shared`` images lie in both, ``first_size`` and ``second_size`` in each (of the images that both runs hold);
    ``jaccard`` is shared over those in either, 0 to 1.
    """

    first: int
    second: int
    shared: int
    first_size: int
    second_size: int
    jaccard: float


@dataclass(frozen=True)
class Comparison:
    """How two clusterings of N images agree.

    ``first_numbers`` (R,) and ``second_numbers`` (S,): the clusters that hold an image, ascending, -1 (rejected) last;
    ``counts`` (R, S): images in both; ``moved`` (N,) bool: the image does not lie in the cluster matched with its own.
    ``ari``, ``ami``: adjusted Rand index and adjusted mutual information (1: identical, 0: chance), the rejected images
    as one group of their own.
    """

    first_numbers: list[int]
    second_numbers: list[int]
    counts: NDArray[np.int64]
    pairs: list[Pair]
    moved: NDArray[np.bool_]
    ari: float
    ami: float

    @property
    def first_alone(self) -> list[int]:
        """Clusters of the first run that match none of the second."""
        matched = {pair.first for pair in self.pairs}
        return [number for number in self.first_numbers if number != REJECTED and number not in matched]

    @property
    def second_alone(self) -> list[int]:
        """Clusters of the second run that match none of the first."""
        matched = {pair.second for pair in self.pairs}
        return [number for number in self.second_numbers if number != REJECTED and number not in matched]


def compare_labels(first: Labels, second: Labels) -> Comparison:
    """Compare two clusterings ``first`` and ``second`` (N,) of the same images; -1: rejected.

    Each cluster is matched with at most one of the other run, so that most images lie in matched clusters (Hungarian
    algorithm: Kuhn 1955); clusters that share no image are not matched. An image that both runs rejected has not moved.

    Raises
    ------
    InputError : no images, or a different number of them
    """
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise InputError(f"Clusters of shapes {first.shape} and {second.shape} cannot be compared. Give one per image.")
    first_numbers, rows = _numbered(first)
    second_numbers, columns = _numbered(second)
    counts = np.zeros((len(first_numbers), len(second_numbers)), dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    pairs = _matched(first_numbers, second_numbers, counts)
    partner = {pair.first: pair.second for pair in pairs} | {REJECTED: REJECTED}
    expected = np.array([partner.get(number, REJECTED - 1) for number in first_numbers])
    return Comparison(
        first_numbers=first_numbers,
        second_numbers=second_numbers,
        counts=counts,
        pairs=pairs,
        moved=expected[rows] != second,
        ari=float(adjusted_rand_score(first, second)),
        ami=float(adjusted_mutual_info_score(first, second)),
    )


def _numbered(labels: Labels) -> tuple[list[int], NDArray[np.intp]]:
    """Return the cluster numbers, ascending, -1 last, and for each image the place of its own among them."""
    found = np.unique(labels)
    order = np.argsort(found == REJECTED, kind="stable")
    return found[order].tolist(), np.argsort(order)[np.searchsorted(found, labels)]


def _matched(first_numbers: list[int], second_numbers: list[int], counts: NDArray[np.int64]) -> list[Pair]:
    kept = counts[: len(first_numbers) - first_numbers.count(REJECTED)]
    kept = kept[:, : len(second_numbers) - second_numbers.count(REJECTED)]
    pairs = []
    for row, column in zip(*(each.tolist() for each in linear_sum_assignment(kept, maximize=True)), strict=True):
        shared, sizes = int(counts[row, column]), (int(counts[row].sum()), int(counts[:, column].sum()))
        if shared:
            jaccard = shared / (sum(sizes) - shared)
            pairs.append(Pair(first_numbers[row], second_numbers[column], shared, *sizes, jaccard))
    return pairs
