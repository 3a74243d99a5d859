"""Settings, batches and the collapse watch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medstrata.errors import FitError
from medstrata.learning.train import Training, batches, collapse_warning, size_entropy


@given(st.integers(1, 40), st.integers(2, 9))
def test_batches_hold_every_image_once_and_never_one_alone(count: int, size: int) -> None:
    parts = list(batches(torch.randperm(count), size))
    assert sorted(torch.cat(parts).tolist()) == list(range(count))
    assert all(2 <= len(part) <= size + 1 for part in parts) or count == 1


def test_small_sets_warm_up_for_more_epochs() -> None:
    training = Training(warmup_epochs=30, warmup_steps=500, batch_size=8)
    assert training.warmup_length(60) == 63  # 8 steps an epoch
    assert training.warmup_length(6600) == 30
    assert Training(warmup_epochs=5, warmup_steps=0).warmup_length(1) == 5


def test_size_entropy_of_equal_and_single_clusters() -> None:
    assert size_entropy(torch.tensor([1, 1, 1])) == pytest.approx(1.0)
    assert size_entropy(torch.tensor([0, 3, 0])) == pytest.approx(0.0)
    assert size_entropy(torch.tensor([2])) == 1.0


def test_collapse_is_said_in_words() -> None:
    assert "Only 2 of the 3" in collapse_warning(torch.tensor([0, 1, 1]), 3)
    assert "95%" in collapse_warning(torch.tensor([0] * 95 + [1] * 5), 2)
    assert collapse_warning(torch.tensor([0, 1, 2]), 3) == ""


def test_cosine_schedule_rises_and_falls_to_zero() -> None:
    training = Training(learning_rate=2.0, schedule="cosine")
    assert training.rate(0.0) == 0 and training.rate(1.0) == pytest.approx(0, abs=1e-12)
    assert training.rate(0.5) == pytest.approx(1.0) and Training(learning_rate=2.0).rate(0.9) == 2.0


def test_impossible_settings_are_told() -> None:
    with pytest.raises(FitError, match="schedule"):
        Training(schedule="linear")
    with pytest.raises(FitError, match="batch_size is 1, but must be a whole number of at least 2"):
        Training(batch_size=1)
