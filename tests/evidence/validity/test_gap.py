"""The gap statistic: its rule on curves written out, planted groups, and points without any."""

from __future__ import annotations

import numpy as np
import pytest

from medstrata.evidence.validity.gap import first_gap, gap_statistic
from medstrata.learning.partitions import centre_partitions


@pytest.mark.parametrize(
    ("gaps", "errors", "expected"),
    [
        ([0.1, 0.5, 0.4, 0.9], [0.0, 0.0, 0.0, 0.0], 2),
        ([0.1, 0.15, 0.4, 0.9], [0.0, 0.1, 0.0, 0.0], 1),
        ([0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0], 4),
    ],
)
def test_smallest_number_within_one_error_of_the_next(gaps: list[float], errors: list[float], expected: int) -> None:
    assert first_gap([1, 2, 3, 4], gaps, errors) == expected


def test_planted_groups_and_a_uniform_box() -> None:
    chance = np.random.default_rng(0)
    vectors = 8 * np.eye(3, 4)[np.arange(120) % 3] + chance.standard_normal((120, 4))
    box = chance.uniform(-1, 1, (200, 2))
    assert gap_statistic(vectors, centre_partitions(vectors, range(1, 6), 0), 0).recommended == 3
    assert gap_statistic(box, centre_partitions(box, range(1, 6), 0), 0).recommended == 1
