"""The flag's rate of false alarms on planted patients, against loops, and what happens where patients are ignored."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta, kstest

from medstrata.evidence.novelty import FALSE_ALARMS, flags, p_values, share_beyond
from medstrata.evidence.typicality import assignments_table, fit_reference

Floats = NDArray[np.float64]


def cohort(patients: int, each: int, seed: int, within: float = 0.1) -> tuple[Floats, list[str | None]]:
    """Images (N, 5) of patients: those of one patient lie near each other."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, 1, (patients, 5))
    z = np.repeat(centres, each, axis=0) + generator.normal(0, within, (patients * each, 5))
    return z, [f"{seed}-{number}" for number in range(patients) for _ in range(each)]


def judged(z: Floats, patients: list[str | None] | None, new: Floats, of_new: list[str | None] | None) -> Floats:
    """p-values of new images."""
    reference = fit_reference(z, np.ones((len(z), 1)), patients)
    table = assignments_table([""] * len(new), new, np.ones((len(new), 1)), reference, of_new)
    assert np.array_equal(table["novel"].to_numpy(), table["novelty_p"].to_numpy() <= FALSE_ALARMS)
    return np.asarray(table["novelty_p"].to_numpy())


def test_p_value_equals_a_loop() -> None:
    generator = np.random.default_rng(0)
    held_back, patients = generator.integers(0, 9, 40).astype(float), generator.integers(0, 7, 40)
    distance = np.array([-1.0, 0.0, 3.0, 3.5, 8.0, 9.0])
    expected = [
        (1 + sum(np.mean(held_back[patients == p] >= far) for p in np.unique(patients)))
        / (len(np.unique(patients)) + 1)
        for far in distance
    ]
    np.testing.assert_allclose(p_values(distance, held_back, patients), expected)


def test_p_values_of_new_patients_are_uniform_and_few_are_flagged() -> None:
    z, patients = cohort(500, 1, 0)
    p = np.concatenate([judged(z, patients, *cohort(500, 1, seed)) for seed in range(1, 9)])
    assert kstest(p, "uniform").statistic < 0.05
    assert 0.004 <= flags(p).mean() <= 0.018


def test_the_rate_holds_for_patients_with_many_images_and_would_not_if_patients_were_ignored() -> None:
    with_patients, without = [], []
    for seed in range(20):
        z, patients = cohort(200, 4, 2 * seed)
        new, of_new = cohort(100, 4, 2 * seed + 1)
        with_patients.append(flags(judged(z, patients, new, of_new)).mean())
        without.append(flags(judged(z, None, new, None)).mean())
    assert 0.002 <= np.mean(with_patients) <= 0.018  # nominal .01
    assert np.mean(without) > 0.25  # their fit images have near neighbours of the same patient, new ones have none


def test_another_kind_is_flagged() -> None:
    z, patients = cohort(300, 2, 0)
    new, of_new = cohort(50, 2, 1)
    assert flags(judged(z, patients, new + 8, of_new)).all()


def test_a_known_patient_is_not_compared_with_his_own_images() -> None:
    z, patients = cohort(200, 3, 0)
    outlier = np.full((1, 5), 9.0)
    z, patients = np.concatenate([z, np.repeat(outlier, 8, axis=0)]), [*patients, *["outlier"] * 8]
    assert judged(z, patients, outlier, ["outlier"])[0] < 0.011
    assert judged(z, patients, outlier, ["a stranger"])[0] > 0.9  # as near to fit images as can be


def test_duplicates_and_unknown_patients() -> None:
    z = np.zeros((150, 2))
    assert judged(z, None, z[:1], None)[0] == 1.0
    assert judged(z, [None] * 150, z[:1] + 1, [None])[0] == pytest.approx(1 / 151)
    one = judged(z, ["one"] * 150, z[:1] + 1, ["another"])  # no other patient to compare the fit images with
    assert one[0] == pytest.approx(1 / 2) and not flags(one)[0]


def test_fewer_than_99_patients_cannot_flag() -> None:
    for patients, flagged in ((98, False), (99, True)):
        p = p_values(np.array([9.0]), np.zeros(patients), np.arange(patients))
        assert flags(p)[0] == flagged


def test_share_beyond_counts_patients() -> None:
    far = np.array([1.0, 5.0, 5.0, 5.0, 1.0, 1.0])
    share, bound = share_beyond(2.0, far, np.array([0, 0, 1, 1, 2, 3]))
    assert share == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert bound == pytest.approx(beta.ppf(0.95, 3, 2))
    assert share_beyond(0.0, far, np.arange(6)) == (1.0, 1.0)
    assert share_beyond(9.0, far, np.arange(6))[1] == pytest.approx(1 - 0.05 ** (1 / 6))
