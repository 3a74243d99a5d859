"""Scores against brute force, planted cases with the answer written out, and invariants."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import rand_score

from medstrata.errors import InputError
from medstrata.evidence.metrics import score

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 4)), min_size=1, max_size=30)


def brute_force(true: list[int], pred: list[int]) -> tuple[int, set[float]]:
    """Most agreements over all one-to-one matchings, and the balanced accuracies that the best matchings reach."""
    classes = sorted(set(true))
    clusters = sorted(set(pred) - {-1})
    padded = [*clusters, *(f"none {i}" for i in range(len(classes)))]
    best, balanced = -1, set[float]()
    for chosen in permutations(padded, len(classes)):
        matching = dict(zip(classes, chosen, strict=True))
        hits = [matching[t] == p for t, p in zip(true, pred, strict=True)]
        recalls = [np.mean([h for h, t in zip(hits, true, strict=True) if t == c]) for c in classes]
        if sum(hits) > best:
            best, balanced = sum(hits), set()
        if sum(hits) == best:
            balanced.add(round(float(np.mean(recalls)), 9))
    return best, balanced


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_matching_is_the_best_of_all_matchings(values: list[tuple[int, int]]) -> None:
    true, pred = [t for t, _ in values], [p for _, p in values]
    found = score(true, pred)
    best, balanced = brute_force(true, pred)
    assert found["accuracy"] == pytest.approx(best / len(true))
    assert round(found["balanced_accuracy"], 9) in balanced


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_purity_and_counts(values: list[tuple[int, int]]) -> None:
    true, pred = [t for t, _ in values], [p for _, p in values]
    found = score(true, pred)
    members = {k: [t for t, p in values if p == k] for k in set(pred) - {-1}}
    assert found["purity"] == pytest.approx(sum(max(Counter(m).values()) for m in members.values()) / len(true))
    assert found["n_clusters"] == len(members)
    assert found["majority_rate"] == max(Counter(true).values()) / len(true)
    assert found["accuracy"] <= found["purity"] + 1e-12


@settings(max_examples=40, deadline=None)
@given(pairs, st.permutations(range(5)))
def test_names_of_clusters_and_classes_do_not_matter(values: list[tuple[int, int]], renamed: list[int]) -> None:
    true, pred = [t for t, _ in values], [p for _, p in values]
    names = ["zeta", "alpha", "mid", "beta"]
    other = score([names[t] for t in true], [p if p < 0 else 10 * renamed[p] for p in pred])
    for key, value in score(true, pred).items():
        if key != "balanced_accuracy":  # several matchings can be equally accurate
            assert other[key] == pytest.approx(value, abs=1e-9), key  # type: ignore[literal-required]


def test_written_out() -> None:
    true = ["ct"] * 6 + ["mr"] * 3 + ["xr"]
    pred = [0, 0, 0, 0, 1, -1, 2, 2, 1, 2]
    found = score(true, pred)  # 0-ct, 2-mr matched; 1 matched with xr, which it does not hold
    assert found["accuracy"] == pytest.approx((4 + 2) / 10)
    assert found["balanced_accuracy"] == pytest.approx((4 / 6 + 2 / 3 + 0) / 3)
    assert found["purity"] == pytest.approx((4 + 1 + 2) / 10)
    assert found["n_clusters"] == 3
    assert found["majority_rate"] == 0.6


def test_adjusted_rand_index_by_counting_pairs() -> None:
    generator = np.random.default_rng(0)
    true, pred = generator.integers(0, 3, 40), generator.integers(0, 4, 40)
    same_true, same_pred = true[:, None] == true, pred[:, None] == pred
    upper = np.triu_indices(40, 1)
    a, b = same_true[upper], same_pred[upper]
    expected = a.sum() * b.sum() / len(a)
    naive = ((a & b).sum() - expected) / ((a.sum() + b.sum()) / 2 - expected)
    assert score(true, pred)["ari"] == pytest.approx(naive)
    assert rand_score(true, pred) == pytest.approx((a == b).mean())  # the pairs themselves are counted right


def test_mutual_information_by_hand() -> None:
    found = score([0, 0, 1, 1], [5, 5, 5, 7])
    joint = {(0, 5): 0.5, (1, 5): 0.25, (1, 7): 0.25}
    p_true, p_pred = {0: 0.5, 1: 0.5}, {5: 0.75, 7: 0.25}
    information = sum(p * np.log(p / (p_true[t] * p_pred[k])) for (t, k), p in joint.items())
    entropies = [-sum(p * np.log(p) for p in side.values()) for side in (p_true, p_pred)]
    assert found["nmi"] == pytest.approx(information / np.mean(entropies))


def test_surplus_clusters_are_wrong_and_rejection_is_no_cluster() -> None:
    assert score([0, 0, 1, 1], [0, 1, 2, 3])["accuracy"] == 0.5
    assert score([0, 0, 1, 1], [0, 1, 2, 3])["purity"] == 1.0
    assert score([0, 0, 1, 1], [-1, -1, -1, -1]) | {"nmi": 0.0, "ami": 0.0, "ari": 0.0} == {
        "accuracy": 0.0,
        "balanced_accuracy": 0.0,
        "nmi": 0.0,
        "ami": 0.0,
        "ari": 0.0,
        "purity": 0.0,
        "n_clusters": 0,
        "majority_rate": 0.5,
    }
    assert score([0, 0, 1, 1], [-1, -1, 1, 1])["ari"] == 1.0  # the rejected form a group of their own


def test_one_cluster_reaches_the_majority_rate_and_nothing_else() -> None:
    found = score([1] * 74 + [0] * 26, [3] * 100)
    assert found["accuracy"] == found["majority_rate"] == 0.74
    assert found["balanced_accuracy"] == 0.5
    assert found["ari"] == found["ami"] == found["nmi"] == 0.0


@pytest.mark.parametrize(("true", "pred"), [([], []), ([1, 2], [1]), ([[1, 2]], [[1, 2]])])
def test_unusable_labels_are_refused(true: list[int], pred: list[int]) -> None:
    with pytest.raises(InputError, match="one label and one cluster per image"):
        score(true, pred)
