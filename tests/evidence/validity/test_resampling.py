"""Agreement of clusters between samples of patients, and its correction by data without groups."""

from __future__ import annotations

import numpy as np

from medstrata.evidence.validity.resampling import agreement, resampled_agreement
from medstrata.learning.cluster_number import principal


def test_planted_groups_agree_and_finer_cuts_do_not() -> None:
    chance = np.random.default_rng(0)
    vectors = 9 * np.eye(3, 6)[np.arange(120) % 3] + chance.standard_normal((120, 6))
    values = agreement(vectors, np.arange(120), [1, 3, 6], np.random.default_rng(0))
    assert values[0] == 1 and values[1] == 1 and values[2] < 0.9
    found = resampled_agreement(principal(vectors), np.arange(120), [1, 2, 3, 4], 0)
    assert found.recommended == 3 and found.values[0] == 0 and found.values[2] > 0.95


def test_noise_is_one_cluster() -> None:
    noise = np.random.default_rng(1).standard_normal((150, 10))
    found = resampled_agreement(principal(noise), np.arange(150), [1, 2, 3, 4], 0)
    assert found.recommended == 1 and max(np.abs(found.values)) < 0.5


def test_too_small_samples_agree_in_nothing() -> None:
    vectors = np.random.default_rng(0).standard_normal((5, 2))
    assert agreement(vectors, np.arange(5), [1, 5], np.random.default_rng(0)).tolist() == [1, 0]
