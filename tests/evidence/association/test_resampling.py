"""Permutation p-values that are valid though the drawing stops early, and bootstrap samples of the right size."""

from __future__ import annotations

import numpy as np
import pytest

from medstrata.evidence.association import resampling
from medstrata.evidence.association.resampling import PERMUTATIONS, permutation_p, resample


def test_p_stops_at_the_hundredth_that_reaches_the_statistic() -> None:
    drawn: list[int] = []

    def draw(count: int) -> np.ndarray:
        start = sum(drawn)
        drawn.append(count)
        return ((start + np.arange(count)) % 5 == 4).astype(float)  # every fifth reaches 1

    assert permutation_p(1.0, draw, 1) == pytest.approx(100 / 500)
    assert sum(drawn) == 1000


def test_p_of_a_statistic_that_is_never_reached() -> None:
    counts: list[int] = []

    def draw(count: int) -> np.ndarray:
        counts.append(count)
        return np.zeros(count)

    assert permutation_p(1.0, draw, 1) == pytest.approx(1 / (PERMUTATIONS + 1))
    assert sum(counts) == PERMUTATIONS


def test_equal_but_for_rounding_counts_as_reached() -> None:
    assert permutation_p(1.0, lambda count: np.full(count, 1 - 1e-14), 1) == 1


def test_memory_stays_bounded() -> None:
    sizes: list[int] = []

    def draw(count: int) -> np.ndarray:
        sizes.append(count)
        return np.ones(count)

    permutation_p(1.0, draw, resampling.BLOCK // 50)
    assert max(sizes) == 50


def test_p_is_valid_under_the_null() -> None:
    generator = np.random.default_rng(0)
    found = [permutation_p(generator.normal(), lambda count: generator.normal(size=count), 1) for _ in range(400)]
    for level in (0.01, 0.05, 0.2, 0.5):
        share = np.mean(np.array(found) <= level)
        assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / 400)


def test_bootstrap_samples_hold_n_units_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "BLOCK", 30)  # several blocks
    seen: list[np.ndarray] = []

    def measure(counts: np.ndarray) -> np.ndarray:
        seen.append(counts)
        return counts[:, 0]

    found = resample(measure, 7, 50, np.random.default_rng(0))
    assert found.shape == (50,)
    assert len(seen) > 5
    every = np.concatenate(seen)
    assert every.shape == (50, 7)
    assert (every.sum(1) == 7).all()
    assert 0.5 < every.mean() < 1.5
    assert every.max() > 1
