"""Two clusterings of the same images: the whole answer written out, and scikit-learn beside it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from medstrata.errors import InputError
from medstrata.evidence.comparison import Pair, compare_labels

FIRST = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, -1, -1, 3])
SECOND = np.array([1, 1, 1, 0, 0, 0, 0, 0, -1, -1, 1, 4])


def test_the_whole_answer() -> None:
    found = compare_labels(FIRST, SECOND)
    assert found.first_numbers == [0, 1, 2, 3, -1] and found.second_numbers == [0, 1, 4, -1]
    assert found.counts.tolist() == [[1, 3, 0, 0], [3, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 1]]
    assert found.pairs == [Pair(0, 1, 3, 4, 4, 3 / 5), Pair(1, 0, 3, 3, 5, 3 / 5), Pair(3, 4, 1, 1, 1, 1.0)]
    assert found.moved.tolist() == [False] * 3 + [True] + [False] * 3 + [True, True, False, True, False]
    assert found.first_alone == [2] and found.second_alone == []
    assert found.ari == pytest.approx(adjusted_rand_score(FIRST, SECOND))
    assert found.ami == pytest.approx(adjusted_mutual_info_score(FIRST, SECOND))


def test_numbers_alone_mean_nothing() -> None:
    renamed = np.array([2, 0, 1])[FIRST[:9]]
    found = compare_labels(FIRST[:9], renamed)
    assert found.ari == 1 and not found.moved.any() and [pair.second for pair in found.pairs] == [2, 0, 1]


def test_all_rejected_match_nothing_and_did_not_move() -> None:
    found = compare_labels(np.full(4, -1), np.full(4, -1))
    assert found.pairs == [] and not found.moved.any() and found.first_alone == []
    assert compare_labels(np.full(3, -1), np.arange(3)).second_alone == [0, 1, 2]


labels = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=1, max_size=25)


@settings(deadline=None)
@given(labels)
def test_no_other_matching_keeps_more_images(rows: list[tuple[int, int]]) -> None:
    first, second = np.array(rows).T
    found = compare_labels(first, second)
    best = max(
        sum(int(((first == k) & (second == match)).sum()) for k, match in enumerate(matches))
        for matches in itertools.permutations(range(4))
    )
    both_rejected = int(((first == -1) & (second == -1)).sum())
    assert sum(pair.shared for pair in found.pairs) == best
    assert int((~found.moved).sum()) == best + both_rejected
    assert found.counts.sum() == len(rows)
    for pair in found.pairs:
        a, b = first == pair.first, second == pair.second
        assert pair.jaccard == (a & b).sum() / (a | b).sum()
        assert (pair.first_size, pair.second_size) == (a.sum(), b.sum())


def test_other_images_cannot_be_compared() -> None:
    for first, second in ((np.zeros(3, int), np.zeros(2, int)), (np.zeros(0, int), np.zeros(0, int))):
        with pytest.raises(InputError, match="Give one per image"):
            compare_labels(first, second)
