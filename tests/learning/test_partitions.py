"""Partitions about centres on planted groups; the valley on data whose density is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from medstrata.learning.partitions import centre_partitions, centres, nearest_centre, scatter, valley


def blobs(groups: int, each: int = 40, apart: float = 8.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    of = np.repeat(np.arange(groups), each)
    return apart * np.eye(groups, 10)[of] + chance.standard_normal((len(of), 10)), of


def test_planted_groups_are_found_and_one_is_one() -> None:
    vectors, of = blobs(4)
    found = centre_partitions(vectors, [4, 1, 2], 0)
    assert list(found) == [1, 2, 4] and set(found[1]) == {0}
    assert adjusted_rand_score(of, found[4]) == 1


def test_no_worse_than_the_k_means_of_scikit_learn() -> None:
    vectors, _ = blobs(6, apart=3.0)
    for number, labels in centre_partitions(vectors, range(2, 9), 0).items():
        assert len(np.unique(labels)) == number
        assert scatter(vectors, labels) <= 1.01 * KMeans(number, n_init=10, random_state=0).fit(vectors).inertia_


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(1, 8), st.integers(0, 3))
def test_no_cluster_is_empty(count: int, number: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((count, 3))
    wanted = min(number, count)
    assert sorted(set(centre_partitions(vectors, [wanted], seed)[wanted])) == list(range(wanted))


def test_centres_and_nearest() -> None:
    vectors, labels = np.array([[0.0, 0], [2, 0], [10, 1]]), np.array([0, 0, 1])
    assert centres(vectors, labels).tolist() == [[1, 0], [10, 1]]
    assert nearest_centre(np.array([[4.0, 0], [7, 0]]), centres(vectors, labels)).tolist() == [0, 1]
    assert scatter(vectors, labels) == 2


@pytest.mark.parametrize(("apart", "low", "high"), [(12.0, 0.0, 0.05), (3.5, 0.3, 0.8), (0.0, 0.8, 1.0)])
def test_valley_between_two_gaussians(apart: float, low: float, high: float) -> None:
    """Between Gaussians 3.5 SD apart the density falls to 2 exp(-1.75^2 / 2) / (1 + exp(-3.5^2 / 2)) = .43."""
    chance = np.random.default_rng(0)
    vectors = chance.standard_normal((2000, 5))
    vectors[1000:, 0] += apart
    assert low <= valley(vectors, centre_partitions(vectors, [2], 0)[2]) <= high


def test_valley_is_not_made_by_many_dimensions() -> None:
    """In 200 dimensions the members of any two clusters of noise lie on their own side of their means' middle."""
    vectors = np.random.default_rng(0).standard_normal((60, 200))
    labels = centre_partitions(vectors, [2], 0)[2]
    means = centres(vectors, labels)
    along = (vectors - means.mean(0)) @ (means[1] - means[0])
    assert ((along > 0) == (labels == 1)).all()
    assert valley(vectors, labels) > 0.8


def test_valley_is_of_the_worst_pair_and_a_single_member_has_none() -> None:
    vectors, of = blobs(3)
    assert valley(vectors, of) < 0.05 and valley(vectors, np.zeros_like(of)) == 0
    split = np.where(of == 2, 2 + (vectors[:, 9] > 0), of)
    assert valley(vectors, split) > 0.8
    alone = of.copy()
    alone[0] = 3
    assert valley(vectors, alone) == 1
