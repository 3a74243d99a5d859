"""Agreement of clusterings: planted labels with the answer written out, and naive references."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from medstrata.evidence.validity.agreement import (
    agreements,
    consensus_matrix,
    image_consensus,
    jaccard_recovery,
    matched,
)

ONE = np.array([0, 0, 0, 1, 1, 2])
TWO = np.array([1, 1, 0, 0, 0, 3])  # 1 is cluster 0, 0 is cluster 1, 3 is cluster 2, 2 is empty
labels = st.lists(st.integers(0, 3), min_size=2, max_size=30).map(np.array)


def test_clusters_are_matched_by_the_images_that_they_share() -> None:
    assert matched(ONE, TWO).tolist() == [0, 0, 1, 1, 1, 2]


def test_surplus_clusters_get_new_numbers() -> None:
    assert matched(np.array([0, 0, 0, 0]), np.array([1, 1, 0, 2])).tolist() == [0, 0, 1, 2]


def test_recovery_is_the_best_jaccard_index() -> None:
    # cluster 0 {0,1,2} beside {0,1}: 2/3; cluster 1 {3,4} beside {2,3,4}: 2/3; cluster 2 {5} beside {5}: 1; 3 is empty
    assert np.allclose(jaccard_recovery(ONE, TWO, 4), [2 / 3, 2 / 3, 1, np.nan], equal_nan=True)


@given(labels, labels)
def test_recovery_agrees_with_sets(one: np.ndarray, two: np.ndarray) -> None:
    size = min(len(one), len(two))
    one, two = one[:size], two[:size]
    for cluster, value in enumerate(jaccard_recovery(one, two, int(one.max()) + 1)):
        members = set(np.flatnonzero(one == cluster))
        if not members:
            assert np.isnan(value)
            continue
        others = [set(np.flatnonzero(two == other)) for other in np.unique(two)]
        assert np.isclose(value, max(len(members & other) / len(members | other) for other in others))


@given(labels, st.permutations(range(4)))
def test_other_names_are_the_same_clusters(one: np.ndarray, names: list[int]) -> None:
    renamed = np.array(names)[one]
    assert adjusted_rand_score(one, matched(one, renamed)) == 1
    assert (matched(one, renamed) == one).all()
    assert (image_consensus(one, [renamed, renamed]) == 1).all()


def test_all_pairs_are_compared() -> None:
    found = agreements([ONE, ONE, TWO])
    assert found["ari"] == [1.0, *[adjusted_rand_score(ONE, TWO)] * 2]
    assert len(found["ami"]) == 3
    assert agreements([ONE])["ari"] == []


def test_consensus_counts_refits() -> None:
    assert image_consensus(ONE, [ONE, TWO]).tolist() == [1, 1, 0.5, 1, 1, 1]
    shared = consensus_matrix([ONE, TWO], np.array([0, 2, 3]))
    assert shared.tolist() == [[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]
