"""Calibration against planted temperatures, a naive error, and the numbers that must come out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from medstrata.errors import InputError
from medstrata.evidence.calibration import calibrate, calibration_error, confidence

Floats = NDArray[np.float64]


def planted(temperature: float, count: int = 6000, seed: int = 0) -> tuple[Floats, NDArray[np.bool_], NDArray[np.str_]]:
    """Soft assignments that are too sure by ``temperature``: agreement has the probability of q^(1 / temperature)."""
    generator = np.random.default_rng(seed)
    soft = softmax(generator.normal(0, 4, (count, 4)), axis=1)
    agreed = generator.random(count) < confidence(soft, temperature)
    return soft, agreed, np.array([f"patient {row // 3}" for row in range(count)])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_planted_temperature_is_found_and_the_error_falls(temperature: float) -> None:
    soft, agreed, patients = planted(temperature)
    found = calibrate(soft, agreed, patients)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert (found.comparisons, found.patients) == (6000, 2000)
    assert found.agreement["mean"] == pytest.approx(agreed.mean())
    before, after = found.error_before["mean"], found.error_after["mean"]
    assert before is not None and after is not None and after < 0.025
    assert before == pytest.approx(after, abs=0.02) if temperature == 1.0 else before > 2 * after


def test_calibrated_probability_is_how_often_others_agree() -> None:
    """Of the new images with a calibrated probability from .6 to .8, about .7 agree; of the raw ones far fewer."""
    found = calibrate(*planted(4.0))
    soft, agreed, _ = planted(4.0, 20_000, seed=1)
    for probability, low, high in ((confidence(soft, found.temperature), 0.67, 0.73), (soft.max(axis=1), 0.0, 0.62)):
        band = (probability >= 0.6) & (probability <= 0.8)
        assert band.sum() > 300 and low < agreed[band].mean() < high


def test_confidence_equals_scipy() -> None:
    soft = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [0.25, 0.5, 0.25]])
    np.testing.assert_allclose(confidence(soft, 1.0), [0.7, 1.0, 0.5], atol=1e-9)
    np.testing.assert_allclose(confidence(soft[[0, 2]], 2.5), softmax(np.log(soft[[0, 2]]) / 2.5, axis=1).max(axis=1))
    assert confidence(soft, 20.0)[1] < 0.9  # a zero is not held for impossible


def test_error_equals_a_loop() -> None:
    generator = np.random.default_rng(3)
    probability = generator.random(1000)
    agreed = generator.random(1000) < probability**2
    patients = np.array([f"{row}" for row in range(1000)])
    found = calibration_error(probability, agreed, patients)
    order = np.argsort(probability)
    expected = sum(abs(probability[part].mean() - agreed[part].mean()) * 100 for part in np.split(order, 10)) / 1000
    assert found["mean"] == pytest.approx(expected, abs=0.003)  # one image at a border may fall on either side
    assert found["low"] is not None and found["high"] is not None
    assert found["low"] < expected < found["high"] < found["low"] + 0.1


def test_equal_probabilities_are_one_bin() -> None:
    agreed = np.arange(100) < 80
    found = calibration_error(np.full(100, 0.9), agreed, np.arange(100).astype(str))
    assert found["mean"] == pytest.approx(0.1)


def test_images_of_one_patient_widen_the_interval() -> None:
    generator = np.random.default_rng(4)
    agreed = np.repeat(generator.random(40) < 0.7, 25)
    probability = np.full(1000, 0.7)
    many = calibration_error(probability, agreed, np.arange(1000).astype(str))
    few = calibration_error(probability, agreed, np.repeat(np.arange(40), 25).astype(str))
    assert (few["high"] or 0) > 2 * (many["high"] or 0)


def test_everyone_agrees_and_a_single_patient() -> None:
    soft = np.tile([0.6, 0.4], (50, 1))
    found = calibrate(soft, np.ones(50, bool), np.array(["one"] * 50))
    assert 0.95 < confidence(soft, found.temperature)[0] < 1  # never quite certain: Platt's targets
    assert found.patients == 1


@pytest.mark.parametrize(
    ("soft", "agreed", "patients"),
    [
        (np.zeros((0, 2)), np.zeros(0, bool), np.zeros(0, "U1")),
        (np.ones((3, 2)), np.ones(2, bool), np.array(["a", "b", "c"])),
        (np.ones((3, 2)), np.ones(3, bool), np.array(["a", "b"])),
        (np.full((1, 2), np.nan), np.ones(1, bool), np.array(["a"])),
        (np.ones(3), np.ones(3, bool), np.array(["a", "b", "c"])),
    ],
)
def test_rows_that_do_not_belong_together(soft: Floats, agreed: NDArray[np.bool_], patients: NDArray[np.str_]) -> None:
    with pytest.raises(InputError, match="one agreement and one patient"):
        calibrate(soft, agreed, patients)


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_holds_its_own_estimate(seed: int) -> None:
    """A perfect probability of few patients: the error is chance alone, and a bootstrap has chance twice."""
    generator = np.random.default_rng(seed)
    probability = generator.uniform(0.5, 1, 60)
    agreed = generator.random(60) < probability
    found = calibration_error(probability, agreed, np.arange(60).astype(str))
    low, mean, high = found["low"], found["mean"], found["high"]
    assert low is not None and mean is not None and high is not None
    assert 0 <= low < mean < high <= 1


def test_calibration_that_makes_it_worse_is_not_applied() -> None:
    """Of a perfect probability and few patients a temperature is learned from chance: better for some, not for all."""
    generator = np.random.default_rng(0)
    soft = softmax(generator.normal(0, 2, (200, 2)), axis=1)
    agreed = generator.random(200) < soft.max(axis=1)
    results = [
        calibrate(soft[rows], agreed[rows], rows.astype(str))
        for rows in generator.permuted(np.tile(np.arange(200), (20, 1)), axis=1)[:, :40]
    ]
    for found in results:
        assert found.applied or (found.temperature == 1.0 and found.error_after == found.error_before)
    assert {found.applied for found in results} == {True, False}


def test_calibration_is_applied_to_few_images_that_need_it() -> None:
    """The calibration error of 60 images is chance; their likelihood tells that the model is too sure."""
    found = []
    for seed in range(10):
        soft, agreed, _ = planted(3.0, 60, seed)
        found.append(calibrate(soft, agreed, np.arange(60).astype(str)))
    assert sum(one.applied and one.temperature > 1.5 for one in found) >= 9
