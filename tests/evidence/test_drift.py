"""Drift: each test on planted batches, its rate of false findings, patients as the unit, and batches too small."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from sklearn.metrics import roc_auc_score

from medstrata.evidence import drift as module
from medstrata.evidence.drift import Batch, cluster_shares, drift, farther_out, told_apart


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERMUTATIONS", 199)
    monkeypatch.setattr(module, "TABLES", 999)


def batch(patients: int, seed: int, each: int = 1, shift: float = 0.0, name: str = "") -> Batch:
    """Patients in 3 clusters with values of their own; ``shift`` moves one value of the embedding."""
    generator = np.random.default_rng(seed)
    own = generator.normal(0, 1, (patients, 8))
    z = np.repeat(own, each, axis=0) + generator.normal(0, 0.1, (patients * each, 8))
    z[:, 7] += shift
    clusters = np.repeat(generator.integers(0, 3, patients), each)
    novelty = np.repeat(generator.exponential(1, patients), each)
    return Batch(z, clusters, novelty, np.repeat([f"{name or seed}-{n}" for n in range(patients)], each))


def test_same_kind_of_patients_are_rarely_called_different() -> None:
    found = [drift(batch(60, 2 * seed, each=5), batch(90, 2 * seed + 1), seed)["drift"] for seed in range(100)]
    assert sum(found) <= 11  # nominal 5 of 100; more than 11 has a chance of .4 %


@pytest.mark.parametrize("name", ["clusters", "novelty", "embedding"])
def test_what_was_changed_is_named(name: str) -> None:
    new, fit = batch(80, 0, shift=1.5 if name == "embedding" else 0), batch(200, 1)
    if name == "clusters":
        new = Batch(new.embeddings, np.where(np.arange(80) < 40, 0, new.clusters), new.novelty, new.patients)
    if name == "novelty":
        new = Batch(new.embeddings, new.clusters, new.novelty + 1, new.patients)
    found = drift(new, fit)
    assert found["drift"] and found["tested"]
    assert [key for key, entry in found["tests"].items() if entry["adjusted"] <= 0.05] == [name]
    assert module.WORDS[name] in found["sentence"] and "80 new patients against 200 of the fit" in found["sentence"]
    assert found["patients"] == {"new": 80, "fit": 200, "in_both": 0}


def test_many_images_of_a_few_patients_are_no_more_evidence() -> None:
    """Twelve patients, 50 images each, by chance in few clusters: by images it is certain, by patients it is not."""
    new = batch(12, 5, each=50)
    fit = batch(300, 6)
    by_image = Batch(new.embeddings, new.clusters, new.novelty, np.arange(600).astype(str))
    assert drift(by_image, fit)["drift"]
    found = drift(new, fit)
    assert found["drift"] is False and found["patients"]["new"] == 12
    assert found["sentence"].startswith("No drift was found")


def test_patients_in_both_count_as_new_only() -> None:
    fit = batch(100, 1, name="p")
    new = batch(30, 2, name="p")
    assert drift(new, fit)["patients"] == {"new": 30, "fit": 70, "in_both": 30}
    found = drift(fit, fit)
    assert found["drift"] is None and "0 patients of the fit that are not among the new ones" in found["sentence"]


@pytest.mark.parametrize(("new", "fit"), [(9, 100), (100, 9), (1, 1)])
def test_too_few_to_test(new: int, fit: int) -> None:
    found = drift(batch(new, 0, each=20), batch(fit, 1, each=20))
    assert (found["tested"], found["drift"], found["tests"]) == (False, None, {})
    assert f"{min(new, fit)} " in found["sentence"] and "too few" in found["sentence"]


def test_cluster_shares_agree_with_the_chi_square_distribution() -> None:
    generator = np.random.default_rng(0)
    new, fit = generator.integers(0, 4, 150), generator.choice(4, 400, p=[0.35, 0.25, 0.2, 0.2])
    table = np.array([np.bincount(side, minlength=4) for side in (new, fit)])
    expected = chi2_contingency(table, correction=False)
    p, association = cluster_shares(new, fit, generator)
    assert p == pytest.approx(expected.pvalue, abs=0.03)
    assert association == pytest.approx(np.sqrt(expected.statistic / 550))
    assert cluster_shares(np.zeros(20, int), np.zeros(30, int), generator) == (1.0, 0.0)


def test_farther_out_is_one_sided_and_knows_ties() -> None:
    near, far = np.arange(20.0), np.arange(20.0) + 15
    assert farther_out(far, near)[0] < 1e-3 and farther_out(near, far)[0] > 0.99
    assert farther_out(far, near)[1] == pytest.approx(roc_auc_score([1] * 20 + [0] * 20, [*far, *near]))
    assert farther_out(np.zeros(20), np.zeros(30)) == (1.0, 0.5)


def test_many_new_images_that_lie_slightly_farther_out_are_no_finding() -> None:
    """Of .54: what a network that learned from the fit images does to them."""
    generator = np.random.default_rng(0)
    fit, new = generator.normal(0, 1, 20_000), generator.normal(0.14, 1, 20_000)
    p, effect = farther_out(new, fit)
    assert p == 1.0 and effect == pytest.approx(0.54, abs=0.01)
    assert farther_out(new + 0.3, fit)[0] < 1e-3


def test_told_apart_by_a_direction_and_not_by_a_constant() -> None:
    generator = np.random.default_rng(0)
    p, area = told_apart(batch(40, 0, shift=2).embeddings, batch(160, 1).embeddings, generator)
    assert p == pytest.approx(1 / 200) and 0.85 < area < 0.97  # two normals 2 apart: .92
    p, area = told_apart(np.ones((20, 3)), np.ones((50, 3)), generator)
    assert (p, area) == (1.0, 0.5)


def test_the_same_seed_gives_the_same() -> None:
    assert drift(batch(30, 0, each=3), batch(60, 1)) == drift(batch(30, 0, each=3), batch(60, 1))
