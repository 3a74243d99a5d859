"""State files and what comes back from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from medstrata.errors import RunFolderError
from medstrata.learning.checkpoints import (
    load_state,
    module_tensors,
    optimizer_tensors,
    restore_module,
    restore_optimizer,
    save_state,
)


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


def test_module_comes_back_with_another_number_of_rows() -> None:
    one, two = nn.Linear(3, 5), nn.Linear(3, 2)
    restore_module("m", two, module_tensors("m", one))
    assert torch.equal(two.weight, one.weight) and two(torch.ones(1, 3)).shape == (1, 5)
    with pytest.raises(KeyError):
        restore_module("other", two, module_tensors("m", one))
