"""Readers of other patients on planted groups: who is held back, who agrees, and when nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medstrata.evidence import held_back as module
from medstrata.evidence.held_back import How, held_back_agreement
from medstrata.evidence.validity.agreement import matching


def groups(distance: float, patients: int = 60, each: int = 4) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    labels = np.arange(patients * each) // each % 3
    z = generator.normal(0, 1, (len(labels), 6))
    z[np.arange(len(labels)), labels] += distance
    return z.astype(np.float32), labels


NAMES = np.array([f"patient {row // 4}" for row in range(240)])


@pytest.mark.parametrize("assignment", ["graph", "kmeans", "own"])
def test_readers_agree_on_groups_that_are_there(assignment: str) -> None:
    z, labels = groups(8)
    found = held_back_agreement(z, labels, NAMES, How(assignment, 0))
    assert found is not None and found.agreed.all()
    assert np.array_equal(np.sort(found.rows), np.repeat(np.arange(240), 2))  # two halves, twice
    np.testing.assert_allclose(found.soft.sum(axis=1), 1, rtol=1e-5)
    assert found.soft.shape == (480, 3)


def test_no_patient_is_on_both_sides_and_labels_that_mean_nothing_are_not_found_again() -> None:
    z, _ = groups(8)
    labels = np.random.default_rng(1).integers(0, 3, 240)
    found = held_back_agreement(z, labels, NAMES, How("kmeans", 0))
    assert found is not None and 0.2 < found.agreed.mean() < 0.5
    for number in range(4):
        back = found.rows[found.reader == number]
        assert not set(NAMES[back]) & set(NAMES[np.setdiff1d(np.arange(240), back)])
        assert 100 <= len(back) <= 140


def test_only_some_patients_take_part_in_large_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IMAGES", 150)
    z, labels = groups(8)
    found = held_back_agreement(z, labels, NAMES, How("kmeans", 0))
    assert found is not None and len(np.unique(found.rows)) == 152  # 38 whole patients


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    z, labels = groups(2)
    one, same, other = (held_back_agreement(z, labels, NAMES, How("mixture", seed)) for seed in (0, 0, 1))
    assert one is not None and same is not None and other is not None
    np.testing.assert_array_equal(one.soft, same.soft)
    assert not np.array_equal(one.rows, other.rows)


@pytest.mark.parametrize(
    ("labels", "patients"),
    [
        (np.zeros(240, np.int64), NAMES),  # one cluster
        (np.arange(240) % 3, np.array([f"{row % 29}" for row in range(240)])),  # 29 patients
        (np.arange(240) % 60, NAMES),  # 60 clusters of 4 images
        (np.arange(240) % 5, np.array([f"{max(0, row - 200)}" for row in range(240)])),  # nearly all of one patient
    ],
)
def test_nothing_is_said_where_too_little_is_there(labels: NDArray[np.int64], patients: NDArray[np.str_]) -> None:
    z, _ = groups(8)
    assert held_back_agreement(z, labels, patients, How("kmeans", 0)) is None


def test_matching_undoes_a_renumbering() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 4])
    renumbered = np.array([3, 1, 0])
    others = np.array([3, 3, 1, 1, 0, 0, 2])
    assert matching(labels, others)[renumbered].tolist() == [0, 1, 2]
    assert matching(labels, others)[2] == 4
    assert matching(np.array([0, 0, 0]), np.array([0, 1, 1])).tolist() == [-1, 0]
