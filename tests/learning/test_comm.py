"""Devices and generators; several processes give what one gives, to the last digits of float64."""

from pathlib import Path

import pytest
import torch

import together
from medstrata.errors import FitError
from medstrata.learning.comm import ALONE, Comm, choose_device, generator, joined


def test_auto_is_a_device_that_works() -> None:
    assert torch.ones(1, device=choose_device("auto")).item() == 1


def test_missing_device_is_told() -> None:
    with pytest.raises(FitError, match="--device cpu"):
        choose_device("cuda:99")


def test_generators_depend_on_every_seed() -> None:
    draws = {torch.rand(1, generator=generator(*seeds)).item() for seeds in [(0,), (1,), (0, 0), (0, 1), (1, 0)]}
    assert len(draws) == 5
    assert torch.rand(1, generator=generator(4, 2)).item() == torch.rand(1, generator=generator(4, 2)).item()


def test_shares_are_in_order_and_cover_everything() -> None:
    for count in (1, 7, 64):
        for world in (1, 2, 3, 5):
            parts = [list(range(count))[Comm(rank, world).share(count)] for rank in range(world)]
            assert [row for part in parts for row in part] == list(range(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_exchanges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    rows = torch.arange(6.0).view(3, 2)
    with joined() as comm:
        assert comm == ALONE
        assert comm.total(rows) is rows and comm.gather(rows) is rows and comm.gather_with_gradient(rows) is rows
        assert comm.count(rows) == 3 and comm.before(rows).eq(0).all() and not torch.distributed.is_initialized()


def test_processes_that_cannot_join_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FitError, match="Use torchrun"), joined():
        pass


def check_equal(name: str, folder: Path, world: int = 2) -> None:
    expected, found = together.alone(name), together.together(name, folder, world)
    assert len(found) == world
    for rank, of_rank in enumerate(found):
        assert list(of_rank) == list(expected)
        wrong = [key for key in expected if not together.same(expected[key], of_rank[key])]
        assert not wrong, (rank, [(key, expected[key], of_rank[key]) for key in wrong[:2]])


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Sums, gradients, BatchNorm, NT-Xent, k-means, target distribution, and short fits of two methods."""
    check_equal("pieces", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all fits", "without training"])
def test_two_processes_fit_every_method_as_one(name: str, tmp_path: Path) -> None:
    check_equal(name, tmp_path)


@pytest.mark.slow
def test_three_processes_equal_one(tmp_path: Path) -> None:
    check_equal("pieces", tmp_path, world=3)


def test_a_silent_process_is_told_within_the_limit(tmp_path: Path) -> None:
    (found,) = together.together("silence", tmp_path)
    assert "did not answer within 0:00:03" in found["error"] and "--max-restarts" in found["error"]
