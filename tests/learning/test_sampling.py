"""Embeddings drawn from a cluster's Gaussian."""

from __future__ import annotations

import pytest
import torch

from medstrata.errors import FitError
from medstrata.learning.sampling import ClusterGaussians


def measured() -> ClusterGaussians:
    chance = torch.Generator().manual_seed(0)
    first = torch.randn(5000, 2, generator=chance) @ torch.tensor([[2.0, 0.0], [1.0, 0.5]]) + torch.tensor([3.0, -1.0])
    z = torch.cat([first, torch.tensor([[7.0, 7.0]])])
    labels = torch.cat([torch.zeros(5000, dtype=torch.int64), torch.tensor([1])])
    gaussians = ClusterGaussians(2)
    gaussians.measure(z, labels, 3)
    return gaussians


def test_draws_have_the_mean_and_covariance_of_the_members() -> None:
    drawn = measured().draw(20_000, 0, torch.Generator().manual_seed(1))
    assert drawn.mean(0).tolist() == pytest.approx([3.0, -1.0], abs=0.1)
    assert drawn.T.cov().flatten().tolist() == pytest.approx([5.0, 0.5, 0.5, 0.25], abs=0.3)


def test_a_single_member_is_drawn_again_and_an_empty_cluster_is_told() -> None:
    assert measured().draw(2, 1, torch.Generator()).tolist() == [[7.0, 7.0], [7.0, 7.0]]
    with pytest.raises(FitError, match="holds no training image"):
        measured().draw(1, 2, torch.Generator())
    with pytest.raises(FitError, match="clusters 0 to 2"):
        measured().draw(1, 3, torch.Generator())
