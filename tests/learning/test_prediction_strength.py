"""Prediction strength against its definition, on planted groups and by patient."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medstrata.learning.prediction_strength import halved, prediction_strength, strength


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=25))
def test_strength_is_the_definition(pairs: list[tuple[int, int]]) -> None:
    clusters, predicted = np.array(pairs).T
    shares = []
    for cluster in set(clusters.tolist()):
        members = [i for i in range(len(clusters)) if clusters[i] == cluster]
        together = [predicted[i] == predicted[j] for i in members for j in members if i != j]
        shares.append(np.mean(together) if together else 0.0)
    assert strength(clusters, predicted) == min(shares)


def test_planted_groups_are_predicted_and_halves_of_them_are_not() -> None:
    chance = np.random.default_rng(0)
    vectors = 10 * np.eye(3, 5)[np.arange(150) % 3] + chance.standard_normal((150, 5))
    one, two, three, four = prediction_strength(vectors, np.arange(150), [1, 2, 3, 4], 0)
    assert one == 1 and three == 1 and 0.4 < two <= 1 and four < 0.8


def test_splits_keep_patients_together() -> None:
    patients = np.repeat(np.arange(20), 3)
    first, second = halved(patients, np.random.default_rng(0))
    assert sorted([*first, *second]) == list(range(60))
    assert not set(patients[first]) & set(patients[second]) and len(first) == 30


def test_clusters_that_are_single_patients_do_not_predict() -> None:
    """Images of a patient are alike: by image two patients look like two clusters, by patient they do not."""
    chance = np.random.default_rng(1)
    patients = np.repeat(np.arange(6), 20)
    vectors = 10 * chance.standard_normal((6, 8))[patients] + chance.standard_normal((120, 8))
    by_image = prediction_strength(vectors, np.arange(120), [6], 0)[0]
    assert by_image > 0.95 and prediction_strength(vectors, patients, [6], 0)[0] < 0.8  # what counts as strong


def test_more_clusters_than_a_half_has_images_have_no_strength() -> None:
    assert prediction_strength(np.random.default_rng(0).standard_normal((8, 2)), np.arange(8), [1, 5], 0) == (1.0, 0.0)
