"""Predicting clusters from technical columns: by patient, against scikit-learn, at chance where nothing is planted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score, recall_score

from medstrata.evidence.confounders import prediction as predicting
from medstrata.evidence.confounders.columns import TechnicalColumn
from medstrata.evidence.confounders.prediction import (
    FOLDS,
    HATS,
    SHUFFLES,
    Task,
    features,
    make_task,
    null_skills,
    prediction,
    ridge,
    skill,
)


def task_of(clusters: np.ndarray, patients: np.ndarray | None = None, seed: int = 0) -> Task:
    task = make_task(clusters, np.arange(len(clusters)) if patients is None else patients, seed)
    assert isinstance(task, Task)
    return task


def test_features_of_numbers_and_of_text() -> None:
    number = TechnicalColumn("rows", "header", np.array([10.0, 40, 20, np.nan, 30]))
    text = TechnicalColumn("model", "header", np.array(["b", "", "a", "a", "b"]))
    x = features([number, text])
    assert x.shape == (5, HATS + 1 + 3)
    np.testing.assert_allclose(x[0], [0.5, 0.5, 0, 0, 0, 0, 0, 0, 1])  # rank 1 of 4 lies at 4 x 0.5 / 4 = 0.5
    np.testing.assert_allclose(x[1], [0, 0, 0, 0.5, 0.5, 0, 1, 0, 0])
    np.testing.assert_allclose(x[3], [0, 0, 0, 0, 0, 1, 0, 1, 0])
    np.testing.assert_allclose(x.sum(1), 2)


def test_ridge_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    x, y, weights = generator.random((40, 5)), generator.random((40, 3)), generator.random(40)
    expected = Ridge(alpha=predicting.PENALTY, fit_intercept=False).fit(x, y, sample_weight=weights).coef_.T
    np.testing.assert_allclose(ridge(x, y, weights), expected, rtol=1e-8)


def test_folds_keep_patients_together_and_small_clusters_and_rejected_images_out() -> None:
    patients = np.repeat(np.arange(40), 3)
    clusters = np.repeat(np.arange(40) % 2, 3) * 2
    clusters[:6], clusters[6:9] = 7, -1  # cluster 7: two patients
    task = task_of(clusters, patients)
    assert task.names == (0, 2) and set(task.rows.tolist()) == set(range(9, 120))
    assert len(task.folds) == FOLDS
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in task.folds])), np.arange(111))
    for train, test in task.folds:
        assert not set(task.patients[train]) & set(task.patients[test])
    reason = make_task(np.repeat([0, 1], 10), np.r_[np.arange(10), np.repeat([10, 11], 5)], 0)
    assert reason == "fewer than two clusters have images of 5 patients or more"


def test_many_images_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "MOST_IMAGES", 50)
    first, second = (task_of(np.arange(400) % 2, seed=seed) for seed in (0, 1))
    assert len(first.rows) == len(second.rows) == 50 and set(first.rows) != set(second.rows)


def test_accuracies_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A predictor that always says the value of the feature, which is right for 80 % of the images."""
    generator = np.random.default_rng(1)
    clusters = generator.choice(3, 300, p=[0.6, 0.3, 0.1])
    guess = np.where(generator.random(300) < 0.8, clusters, generator.integers(3, size=300))
    monkeypatch.setattr(predicting, "ridge", lambda x, y, weights: np.eye(3))
    found = skill(np.eye(3)[guess], task_of(clusters))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(clusters, guess))
    np.testing.assert_allclose(found.recall, recall_score(clusters, guess, average=None))
    apart = [balanced_accuracy_score(clusters == k, guess == k) for k in range(3)]
    np.testing.assert_allclose(found.apart, apart)


def test_a_cluster_in_the_middle_of_a_range_is_told() -> None:
    clusters = np.repeat([0, 1, 2], 60)
    numbers = clusters + np.random.default_rng(0).uniform(-0.4, 0.4, 180)
    found = prediction([TechnicalColumn("rows", "header", numbers)], task_of(clusters), 0)
    assert found is not None and found["balanced_accuracy"] > 0.9
    assert found["clusters"][1]["balanced_accuracy"] > 0.85
    assert found["p"] == pytest.approx(1 / (SHUFFLES + 1)) and found["chance"] == pytest.approx(1 / 3)
    assert (found["images"], found["patients"], found["shuffles"]) == (180, 180, SHUFFLES)
    assert found["adjusted"] == found["p"]
    assert prediction([], task_of(clusters), 0) is None


def test_of_many_kinds_each_is_asked_for_more() -> None:
    """A column that says the cluster stays below 5 % among ten kinds; one of chance is not shuffled so often."""
    clusters = np.repeat([0, 1, 2], 60)
    told, chance = np.array(["a", "b", "c"])[clusters], np.random.default_rng(0).choice(["a", "b"], 180)
    found, nothing = (
        prediction([TechnicalColumn("model", "header", values)], task_of(clusters), 0, kinds=10)
        for values in (told, chance)
    )
    assert found is not None and nothing is not None
    assert (found["shuffles"], nothing["shuffles"]) == (SHUFFLES + 9 * (SHUFFLES + 1), SHUFFLES)
    assert found["p"] == pytest.approx(1 / 400) and found["adjusted"] == pytest.approx(0.025)
    assert nothing["adjusted"] == min(1, 10 * nothing["p"]) > 0.05


def test_a_scanner_shared_by_two_clusters_tells_both_from_the_rest() -> None:
    clusters = np.arange(200) % 4
    scanner = TechnicalColumn("model", "header", np.where(clusters < 2, "A", "B"))
    found = skill(features([scanner]), task_of(clusters))
    np.testing.assert_allclose(found.apart, 5 / 6)  # all of the cluster, and of the rest one third
    assert found.balanced_accuracy == pytest.approx(0.5, abs=0.1)


def test_shuffled_patients_keep_their_images_together() -> None:
    patients = np.array([5, 2, 5, 5, 9, 2, 7])
    donors = set()
    for seed in range(20):
        rows = predicting._other_patients(patients, np.random.default_rng(seed))
        for patient in (2, 5, 7, 9):
            given = patients[rows[patients == patient]]
            assert len(set(given.tolist())) == 1
            donors.add((patient, int(given[0])))
        three = rows[patients == 5]
        assert len(set(three.tolist())) == min(3, (patients == patients[three[0]]).sum())
    assert len(donors) == 16


def test_the_null_lies_at_chance_and_p_is_uniform_where_nothing_is_planted() -> None:
    """Ten images of a patient, all of one scanner and one cluster: p <= .1 in about a tenth of 60 data sets."""
    low = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        clusters, scanner = np.tile([0, 1], 10)[generator.permutation(20)], generator.integers(3, size=20)
        patients = np.repeat(np.arange(20), 10)
        task = task_of(clusters[patients], patients, seed)
        x = features([TechnicalColumn("model", "header", scanner[patients].astype(str))])[task.rows]
        own = skill(x, task)
        null = np.array([each.balanced_accuracy for each in null_skills(x, task, own, 1, seed)])
        low += predicting._p(own.balanced_accuracy, null) <= 0.1
    assert low <= 12  # 99 % of the binomial distribution
