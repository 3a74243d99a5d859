"""The null of images without groups, with a method that needs no training: means over quadrants and k-means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medstrata.evidence.validity.null import GAP, STATISTICS, half_and_half, null_test, surrogate_split
from medstrata.methods.principal import PrincipalComponents

PATIENTS = np.array([f"p{number}" for number in range(120)])


def fit(images: np.ndarray, seed: int) -> Any:
    return PrincipalComponents(2, random_state=seed, device="cpu").fit(images)


def images(groups: bool, seed: int = 0) -> np.ndarray:
    """Images (120, 1, 6, 6) of noise; in half of them a bright corner where ``groups``."""
    random = np.random.default_rng(seed)
    pixels = random.normal(100, 10, (120, 1, 6, 6))
    if groups:
        pixels[::2, :, :3, :3] += 40
    return pixels.clip(0, 255).astype(np.uint8)


def test_planted_groups_beat_images_without() -> None:
    real = [half_and_half(images(True), PATIENTS, fit, [0, number]) for number in range(3)]
    surrogates = [surrogate_split(images(True), PATIENTS, fit, [0, 1000 + number]) for number in range(19)]
    found = null_test(real, surrogates)
    assert found["passed"] and found["separate"]
    assert found["p"] == 0.05
    assert found["replication"]["real"] > 0.9


def test_noise_does_not() -> None:
    real = [half_and_half(images(False), PATIENTS, fit, [0, number]) for number in range(3)]
    surrogates = [surrogate_split(images(False), PATIENTS, fit, [0, 1000 + number]) for number in range(7)]
    assert null_test(real, surrogates)["p"] > 1 / 8


def test_the_rank_is_counted_with_the_real_images() -> None:
    real = [dict.fromkeys((*STATISTICS, GAP), value) for value in (0.5, 0.7)]
    surrogates = [{"replication": value, "separation": 0.0, GAP: 0.0} for value in (0.1, 0.6, 0.7, 0.2)]
    found = null_test(real, surrogates)
    assert found["replication"]["p"] == pytest.approx(2 / 5)  # 0.7 is better than the mean, 0.6 not as far apart
    assert found["separation"]["p"] == pytest.approx(1 / 5)
    assert found["p"] == pytest.approx(2 / 5)


def test_eighteen_surrogates_cannot_pass() -> None:
    best, none = dict.fromkeys((*STATISTICS, GAP), 1.5), dict.fromkeys((*STATISTICS, GAP), 0.0)
    assert not null_test([best], [none] * 18)["passed"]
    assert null_test([best], [none] * 19)["passed"]
    assert null_test([best], [none] * 19)["separate"]


def test_a_tie_at_the_highest_value_is_decided_by_the_other_statistic() -> None:
    real = {"replication": 1.0, "separation": 0.9, GAP: 2.0}
    by_chance = {"replication": 1.0, "separation": 0.5, GAP: 0.5}
    found = null_test([real], [by_chance] * 19)
    assert (found["replication"]["as_good"], found["p"]) == (0, 0.05)
    assert null_test([real], [{**by_chance, "separation": 0.9}] * 19)["p"] == 1.0


def test_a_gap_must_be_real_and_larger_than_in_surrogates() -> None:
    best, none = dict.fromkeys(STATISTICS, 1.0), dict.fromkeys(STATISTICS, 0.0)
    assert not null_test([{**best, GAP: 0.9}], [{**none, GAP: 0.4}] * 19)["separate"]  # as a continuum has it
    assert not null_test([{**best, GAP: 1.6}], [{**none, GAP: 1.7}] * 19)["separate"]  # made by the training
    assert null_test([{**best, GAP: 1.6}], [{**none, GAP: 1.5}] * 19)["separate"]


def test_patients_stay_on_one_side() -> None:
    patients = np.repeat([f"p{number}" for number in range(12)], 10)
    seen: list[set[int]] = []
    pixels = np.zeros((120, 1, 4, 4), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.repeat(np.arange(12), 10) + 1
    pixels[:, 0, 1:, 1:] = np.random.default_rng(0).integers(0, 200, (120, 3, 3))

    def spy(some: np.ndarray, seed: int) -> Any:
        seen.append(set(some[:, 0, 0, 0].tolist()))
        return fit(some, seed)

    half_and_half(pixels, patients, spy, [0, 0])
    assert len(seen[0]) == len(seen[1]) == 6
    assert not seen[0] & seen[1]


def test_patients_with_many_images_are_no_groups() -> None:
    """Each patient looks like itself: clumps that surrogates must have too."""
    random = np.random.default_rng(3)
    patients = np.repeat([f"p{number}" for number in range(24)], 10)
    pixels = np.repeat(random.normal(100, 15, (24, 1, 6, 6)), 10, axis=0) + random.normal(0, 5, (240, 1, 6, 6))
    pixels = pixels.clip(0, 255).astype(np.uint8)
    real = [half_and_half(pixels, patients, fit, [0, number]) for number in range(3)]
    surrogates = [surrogate_split(pixels, patients, fit, [0, 1000 + number]) for number in range(7)]
    found = null_test(real, surrogates)
    assert found["separation"]["p"] > 1 / 8 and found["replication"]["p"] > 1 / 8
    assert not found["separate"]
