"""Devices and generators."""

import pytest
import torch

from medstrata.errors import FitError
from medstrata.learning.comm import choose_device, generator


def test_auto_is_a_device_that_works() -> None:
    assert torch.ones(1, device=choose_device("auto")).item() == 1


def test_missing_device_is_told() -> None:
    with pytest.raises(FitError, match="--device cpu"):
        choose_device("cuda:99")


def test_generators_depend_on_every_seed() -> None:
    draws = {torch.rand(1, generator=generator(*seeds)).item() for seeds in [(0,), (1,), (0, 0), (0, 1), (1, 0)]}
    assert len(draws) == 5
    assert torch.rand(1, generator=generator(4, 2)).item() == torch.rand(1, generator=generator(4, 2)).item()
