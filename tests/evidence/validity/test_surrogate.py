"""Surrogate images: mean and covariance of the images, no groups, the same type and range."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from medstrata.evidence.validity import surrogate
from medstrata.evidence.validity.surrogate import surrogate_images, surrogate_study
from medstrata.learning.adjustment import InBatches

EACH = np.array([f"p{number}" for number in range(400)])  # one image of each patient


def two_groups(count: int = 400) -> np.ndarray:
    """Images (N, 1, 2, 2) of two kinds: left half bright or dark."""
    random = np.random.default_rng(0)
    images = random.normal(100, 2, (count, 1, 2, 2))
    images[: count // 2, :, :, 0] += 60
    return images


def test_mean_and_covariance_are_those_of_the_images() -> None:
    images = two_groups()
    many = [surrogate_images(images, EACH, [seed]) for seed in range(50)]
    drawn = np.concatenate(many).reshape(20_000, -1)
    flat = images.reshape(len(images), -1)
    assert np.allclose(drawn.mean(0), flat.mean(0), atol=1.5)
    assert np.allclose(np.cov(drawn.T), np.cov(flat.T), rtol=0.1, atol=5)


def test_there_is_one_group_where_there_were_two() -> None:
    images = two_groups()
    drawn = np.concatenate([surrogate_images(images, EACH, [seed]) for seed in range(5)])[:, 0, 0, 0]
    real = images[:, 0, 0, 0]
    assert kstest((real - real.mean()) / real.std(), "norm").pvalue < 1e-6
    assert kstest((drawn - drawn.mean()) / drawn.std(), "norm").pvalue > 0.01


def test_integers_come_back_rounded_and_in_range() -> None:
    images = two_groups().round().astype(np.uint8)
    drawn = surrogate_images(images, EACH, [2])
    assert drawn.dtype == np.uint8
    assert drawn.min() >= images.min()
    assert drawn.max() <= images.max()


def test_blocks_of_pixels_change_nothing(monkeypatch: object) -> None:
    images = two_groups(20)
    whole = surrogate_images(images, EACH[:20], [3])
    monkeypatch.setattr(surrogate, "VALUES_AT_ONCE", 50)  # type: ignore[attr-defined]
    assert np.allclose(surrogate_images(images, EACH[:20], [3]), whole)


def test_the_seed_decides() -> None:
    images = two_groups(20)
    once = surrogate_images(images, EACH[:20], [3])
    assert np.array_equal(once, surrogate_images(images, EACH[:20], [3]))
    assert not np.array_equal(once, surrogate_images(images, EACH[:20], [4]))


def test_one_image_gives_copies_of_it() -> None:
    assert np.allclose(surrogate_images(two_groups()[:1], EACH[:1], [0]), two_groups()[:1])


def test_images_of_one_patient_stay_alike() -> None:
    random = np.random.default_rng(0)
    patients = np.repeat([f"p{number}" for number in range(60)], 10)
    images = (np.repeat(random.normal(0, 3, (60, 4)), 10, axis=0) + random.normal(0, 1, (600, 4))).reshape(600, 1, 2, 2)
    drawn = np.concatenate([surrogate_images(images, patients, [seed]).reshape(60, 10, 4) for seed in range(10)])
    within = drawn.var(1, ddof=1).mean()
    assert within == pytest.approx(1, rel=0.1)
    assert drawn.mean(1).var(0).mean() == pytest.approx(9.1, rel=0.3)


def test_every_batch_has_a_gaussian_of_its_own() -> None:
    images = two_groups()
    numbers = np.repeat([0, 1], 200)
    drawn = surrogate_study(InBatches(images, numbers, 2), EACH, 3)
    assert isinstance(drawn, InBatches) and drawn.count == 2 and np.array_equal(drawn.numbers, numbers)
    for number in range(2):
        of_batch = numbers == number
        assert np.allclose(drawn.images[of_batch].mean(0), images[of_batch].mean(0), atol=1)
        assert drawn.images[of_batch].std(0).min() > 1 and drawn.images[of_batch].std(0).max() < 3
    assert np.array_equal(surrogate_study(images, EACH, 3), surrogate_images(images, EACH, [3]))
