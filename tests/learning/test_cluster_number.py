"""The measured rule for the number of clusters: each criterion on planted groups, noise, and degenerate embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from medstrata.learning.cluster_number import (
    Criterion,
    agreed,
    by_connection,
    by_mixture,
    directions,
    one_gaussian,
    possible,
    principal,
    round_criteria,
    separated_clusters,
)
from medstrata.learning.partitions import centre_partitions


def blobs(groups: int, each: int = 40, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng([groups, seed])
    places = 8 * chance.permutation(np.eye(12))[:groups]
    return places[np.repeat(np.arange(groups), each)] + chance.standard_normal((groups * each, 12))


def rings(count: int = 800) -> np.ndarray:
    """Two thin rings, one above the other."""
    chance = np.random.default_rng(0)
    angle = chance.uniform(0, 2 * np.pi, count)
    height = np.where(np.arange(count) % 2, 0.9, -0.9)
    return np.stack([np.cos(angle), np.sin(angle), height * 1.2], 1) + chance.normal(0, 0.03, (count, 3))


@pytest.mark.parametrize("groups", [2, 3, 4, 5, 6])
def test_planted_groups_are_counted_by_every_criterion(groups: int) -> None:
    axes = principal(blobs(groups))
    numbers = list(range(1, 9))
    found = centre_partitions(directions(axes), numbers, 0)
    criteria = round_criteria(axes, np.arange(len(axes)), found, 0)
    criteria["connection"] = by_connection(axes, numbers, 0)
    assert {name: criterion.recommended for name, criterion in criteria.items()} == dict.fromkeys(criteria, groups)
    assert all(len(criterion.values) == 8 for criterion in criteria.values())
    assert separated_clusters(blobs(groups), 0) == groups


@pytest.mark.parametrize("seed", range(4))
def test_one_gaussian_is_one(seed: int) -> None:
    z = np.random.default_rng(seed).standard_normal((200, 10)) * np.geomspace(3, 0.5, 10)
    assert separated_clusters(z, 0) == 1


def test_the_surrogate_has_the_variances_and_the_size() -> None:
    axes = principal(blobs(3, 500))
    drawn = one_gaussian(axes, np.random.default_rng(0))
    assert drawn.shape == axes.shape and np.allclose(drawn.std(0), axes.std(0), rtol=0.1)


def test_mixture_takes_the_smallest_criterion_of_scikit_learn() -> None:
    vectors = directions(principal(blobs(3)))
    found = centre_partitions(vectors, [1, 3], 0)
    criterion = by_mixture(vectors, found)
    axes = principal(vectors)
    one = GaussianMixture(1, covariance_type="diag", reg_covar=1e-3 * axes.var(0).min()).fit(axes).bic(axes)
    assert criterion.values[0] == pytest.approx(one, rel=1e-6) and criterion.recommended == 3


@pytest.mark.parametrize(
    ("valley", "strength", "mixture", "connection", "expected"),
    [(4, 3, 4, 9, 4), (2, 3, 9, 1, 3), (1, 5, 5, 2, 2), (1, 3, 3, 1, 1), (5, 1, 5, 1, 5)],
)
def test_the_rule(valley: int, strength: int, mixture: int, connection: int, expected: int) -> None:
    names = ("valley", "prediction strength", "mixture", "connection")
    given_ = zip(names, (valley, strength, mixture, connection), strict=True)
    assert agreed({name: Criterion((), number) for name, number in given_}) == expected


def test_connection_of_whole_rings_is_none_and_of_parts_of_rings_some() -> None:
    found = by_connection(principal(rings()), [1, 2, 3], 0)
    assert found.values[:2] == (0, 0) and found.values[2] > 0.05 and found.recommended >= 2


def test_possible_numbers_hold_one_and_three_images_a_cluster() -> None:
    assert possible(range(2, 11), 20) == [1, 2, 3, 4, 5, 6] and possible([], 5) == [1]


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 14), st.integers(1, 4), st.booleans())
def test_degenerate_embeddings_give_a_number(count: int, axes: int, equal: bool) -> None:
    z = np.ones((count, axes)) if equal else np.random.default_rng(count).standard_normal((count, axes))
    assert 1 <= separated_clusters(z, 0) <= max(1, count // 3)
    assert not equal or separated_clusters(z, 0) == 1
