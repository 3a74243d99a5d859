"""Batches, the collapse watch, and state files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medstrata.errors import RunFolderError
from medstrata.learning.train import (
    Training,
    batches,
    collapse_warning,
    load_state,
    optimizer_tensors,
    restore_optimizer,
    save_state,
    size_entropy,
)


def test_batches_are_a_permutation_that_the_seeds_decide() -> None:
    one = torch.cat(list(batches(10, 3, 0, 1)))
    assert sorted(one.tolist()) == list(range(10))
    assert torch.equal(one, torch.cat(list(batches(10, 3, 0, 1))))
    assert not torch.equal(one, torch.cat(list(batches(10, 3, 0, 2))))


def test_small_sets_warm_up_for_more_epochs() -> None:
    training = Training(warmup_epochs=30, warmup_steps=500, batch_size=8)
    assert training.warmup_length(60) == 63  # 8 steps an epoch
    assert training.warmup_length(6600) == 30
    assert Training(warmup_epochs=5, warmup_steps=0).warmup_length(1) == 5


def test_size_entropy_of_equal_and_single_clusters() -> None:
    assert size_entropy(torch.tensor([0, 1, 2]), 3) == pytest.approx(1.0)
    assert size_entropy(torch.tensor([1, 1, 1]), 3) == pytest.approx(0.0)
    assert size_entropy(torch.tensor([0, 0]), 1) == 1.0


def test_collapse_is_said_in_words() -> None:
    assert "Only 2 of the 3" in collapse_warning(torch.tensor([0, 1, 1]), 3)
    assert "95%" in collapse_warning(torch.tensor([0] * 95 + [1] * 5), 2)
    assert collapse_warning(torch.tensor([0, 1, 2]), 3) == ""


def test_state_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path / "s.safetensors", {"a": torch.arange(3)}, {"epoch": 4})
    tensors, values = load_state(tmp_path / "s.safetensors")
    assert tensors["a"].tolist() == [0, 1, 2] and values == {"epoch": 4}


def test_truncated_state_is_told(tmp_path: Path) -> None:
    save_state(tmp_path / "s.safetensors", {"a": torch.arange(300)}, {})
    data = (tmp_path / "s.safetensors").read_bytes()
    (tmp_path / "s.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(RunFolderError, match="damaged"):
        load_state(tmp_path / "s.safetensors")


def test_optimizer_goes_on_as_if_never_stopped() -> None:
    def steps(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            (parameter**2).sum().backward()
            optimizer.step()

    whole = torch.nn.Parameter(torch.ones(3))
    steps(whole, torch.optim.Adam([whole], lr=0.1), 6)
    half = torch.nn.Parameter(torch.ones(3))
    first = torch.optim.Adam([half], lr=0.1)
    steps(half, first, 3)
    second = torch.optim.Adam([half], lr=0.1)
    restore_optimizer(second, {name: value.clone() for name, value in optimizer_tensors(first).items()})
    steps(half, second, 3)
    assert torch.equal(half, whole)
