"""Bootstrap intervals where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from medstrata.evidence.intervals import few_interval, mean_interval


def test_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = mean_interval(values)
    half = 1.96 * values.std() / 20
    assert found["mean"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.03)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.03)


def test_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        found = mean_interval(rng.exponential(1, 60), seed)
        hits += (found["low"] or 0) <= 1 <= (found["high"] or 0)
    assert 0.88 <= hits / 200 <= 0.99


def test_nan_is_left_out_and_nothing_gives_nothing() -> None:
    assert mean_interval([1.0, np.nan, 1.0]) == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert mean_interval([np.nan]) == {"mean": None, "low": None, "high": None} == mean_interval([])


def test_few_values_by_students_t() -> None:
    """Of 1, 2, 3: mean 2, standard error 1 / sqrt(3), t of 2 degrees of freedom 4.303."""
    found = few_interval([1.0, 2.0, np.nan, 3.0])
    assert found["mean"] == 2.0
    assert found["high"] == pytest.approx(2 + 4.303 / np.sqrt(3), abs=1e-3)
    assert found["low"] == pytest.approx(2 - 4.303 / np.sqrt(3), abs=1e-3)
    assert few_interval([0.5]) == {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert few_interval([]) == {"mean": None, "low": None, "high": None}


def test_units_are_what_is_drawn() -> None:
    """Two patients, one with many images: the mean is of patients, and it has two values to draw from."""
    found = mean_interval([0.0] * 9 + [1.0], units=["a"] * 9 + ["b"])
    assert found == {"mean": 0.5, "low": 0.0, "high": 1.0}
