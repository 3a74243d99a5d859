"""The neighbour graph against its definition; Leiden brought to exactly K on planted groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from medstrata.learning import graph
from medstrata.learning.graph import connection, leiden, modularity, neighbours, partitions, shared_neighbour_graph


def blobs(groups: int, each: int = 30, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, 20, (groups, 3))
    return (np.repeat(centres, each, 0) + generator.normal(0, 1, (groups * each, 3))).astype(np.float32)


def test_weights_are_the_jaccard_index_of_neighbourhoods() -> None:
    x = blobs(2, 8)
    weights = shared_neighbour_graph(x, 3).toarray()
    distances = ((x[:, None] - x[None]) ** 2).sum(2)
    hoods = [set(np.argsort(row, kind="stable")[:4].tolist()) for row in distances]
    for i in range(16):
        for j in range(16):
            joined = i != j and (j in hoods[i] or i in hoods[j])
            expected = len(hoods[i] & hoods[j]) / len(hoods[i] | hoods[j]) if joined else 0.0
            assert weights[i, j] == pytest.approx(expected, abs=1e-6)


def test_approximate_neighbours_are_nearly_all_right(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    exact = neighbours(vectors, vectors, 20)
    monkeypatch.setattr(graph, "EXACT", 1000)
    found = neighbours(vectors, vectors, 20)
    right = [len(set(one) & set(two)) / 20 for one, two in zip(exact.tolist(), found.tolist(), strict=True)]
    assert np.mean(right) > 0.97 and not np.array_equal(exact, found), "it is the other way that was taken"


@pytest.mark.parametrize("k", [1, 2, 4, 5, 9])
def test_exactly_k_clusters_and_sorted_by_size(k: int) -> None:
    labels = leiden(shared_neighbour_graph(blobs(4), 10), k, 0)
    sizes = np.bincount(labels)
    assert len(sizes) == k and list(sizes) == sorted(sizes, reverse=True)


def test_planted_groups_are_found_whole() -> None:
    labels = leiden(shared_neighbour_graph(blobs(5), 10), 5, 0)
    assert [len(set(labels[i : i + 30])) for i in range(0, 150, 30)] == [1] * 5


def test_fewer_vectors_than_neighbours() -> None:
    assert len(leiden(shared_neighbour_graph(blobs(1, 5)), 2, 0)) == 5


def test_same_seed_same_partition() -> None:
    graph = shared_neighbour_graph(blobs(4), 10)
    assert np.array_equal(leiden(graph, 6, 1), leiden(graph, 6, 1))


def test_small_sets_have_fewer_neighbours_than_would_join_all_with_all() -> None:
    vectors = np.repeat(np.eye(3), 6, axis=0) + np.random.default_rng(0).normal(0, 0.1, (18, 3))
    labels = leiden(shared_neighbour_graph(vectors), 3, 0)
    assert [len(set(labels[start : start + 6])) for start in (0, 6, 12)] == [1, 1, 1] and len(set(labels)) == 3


def test_modularity_is_newmans_formula() -> None:
    chance = np.random.default_rng(0)
    weights = chance.random((6, 6)) * (chance.random((6, 6)) < 0.7)
    weights = np.triu(weights, 1) + np.triu(weights, 1).T
    labels, total = np.array([0, 0, 1, 1, 2, 2]), weights.sum()
    naive = 0.0
    for i in range(6):
        for j in range(6):
            if labels[i] == labels[j]:
                naive += (weights[i, j] - weights[i].sum() * weights[j].sum() / total) / total
    assert modularity(csr_matrix(weights), labels) == pytest.approx(naive)


def test_partitions_of_all_numbers_are_nested() -> None:
    graph = shared_neighbour_graph(blobs(4), 10)
    found = partitions(graph, [4, 2, 1, 6], 0)
    assert {number: len(np.unique(labels)) for number, labels in found.items()} == {6: 6, 4: 4, 2: 2, 1: 1}
    assert [len(set(found[4][i : i + 30])) for i in range(0, 120, 30)] == [1] * 4
    for fine, coarse in ((6, 4), (4, 2), (2, 1)):
        assert len(set(zip(found[fine].tolist(), found[coarse].tolist(), strict=True))) == fine


def test_connection_is_the_density_between_over_the_density_within() -> None:
    chance = np.random.default_rng(1)
    weights = np.triu(chance.random((7, 7)), 1)
    weights += weights.T
    labels = np.array([0, 0, 0, 1, 1, 2, 2])
    sizes = [3, 2, 2]
    density = [
        [weights[np.ix_(labels == i, labels == j)].sum() / (sizes[i] * sizes[j]) for j in range(3)] for i in range(3)
    ]
    pairs = [density[i][j] / min(density[i][i], density[j][j]) for i in range(3) for j in range(i)]
    assert connection(csr_matrix(weights), labels) == pytest.approx(min(max(pairs), 1))
    assert connection(csr_matrix(weights), np.zeros(7, np.int64)) == 0
