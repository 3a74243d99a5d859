"""Soft assignments, target distribution and their loss against naive references; starts and repairs of prototypes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from medstrata.learning.fitting import STOPPED, Fit
from medstrata.learning.self_training import (
    clustering_loss,
    refresh_target,
    soft_assignment,
    start_prototypes,
    target_distribution,
)
from medstrata.learning.train import Training


def test_soft_assignment_is_students_t() -> None:
    z, mu = torch.randn(5, 4), torch.randn(3, 4)
    q = soft_assignment(z, mu)
    for i in range(5):
        similarity = [1 / (1 + sum((float(z[i, d]) - float(mu[j, d])) ** 2 for d in range(4))) for j in range(3)]
        assert q[i].tolist() == pytest.approx([s / sum(similarity) for s in similarity], rel=1e-5)


def test_target_distribution_weighs_and_sharpens() -> None:
    q = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    f = [0.9 + 0.6 + 0.2, 0.1 + 0.4 + 0.8]
    for row, got in zip(q.tolist(), target_distribution(q).tolist(), strict=True):
        weighted = [row[j] ** 2 / f[j] for j in range(2)]
        assert got == pytest.approx([w / sum(weighted) for w in weighted], rel=1e-5)


def test_clustering_loss_sums_over_clusters_and_averages_over_images() -> None:
    p = torch.tensor([[0.7, 0.3], [0.5, 0.5]])
    q = torch.tensor([[0.6, 0.4], [0.9, 0.1]])
    naive = sum(p[i, j] * math.log(p[i, j] / q[i, j]) for i in range(2) for j in range(2)) / 2
    assert float(clustering_loss(p, q)) == pytest.approx(float(naive), rel=1e-5)


def fit(**training: object) -> Fit:
    images = np.zeros((4, 1, 2, 2), np.uint8)
    return Fit(nn.Linear(1, 1), images, torch.as_tensor, Training(**training), 0, [])  # type: ignore[arg-type]


def test_empty_cluster_gets_the_farthest_embedding() -> None:
    z = torch.tensor([[0.0] * 6, [0.1] * 6, [9.0] * 6])
    prototypes = nn.Parameter(torch.tensor([[0.0] * 6, [0.1] * 6, [50.0] * 6]))
    with torch.no_grad():
        prototypes[1] = 9.0
    record = refresh_target(fit(), 0, z, prototypes)
    assert record["repaired"] == 1 and prototypes[2].tolist() == pytest.approx([0.1] * 6)


def test_target_is_of_the_whole_set_and_kept_between_its_intervals() -> None:
    z, prototypes, one = torch.randn(9, 2), nn.Parameter(torch.randn(2, 2)), fit(target_interval=3)
    assert refresh_target(one, 0, z, prototypes)["label_change"] == 1.0
    expected = target_distribution(soft_assignment(z, prototypes.detach()))
    assert torch.allclose(one.of_images["target"], expected)
    assert refresh_target(one, 1, z + 9, prototypes) == {}
    assert torch.allclose(one.of_images["target"], expected)
    assert refresh_target(one, 3, z, prototypes)[STOPPED] == "labels settled"


def test_prototypes_start_at_the_means_of_directions() -> None:
    z = torch.tensor([[1.0, 0.0], [9.0, 0.1], [-1.0, 0.0], [-9.0, -0.1]])
    prototypes = start_prototypes(z, 2, fit())
    assert sorted(prototypes[:, 0].tolist()) == pytest.approx([-5.0, 5.0])
    plain = start_prototypes(z[[0, 2, 3, 1]], 3, fit(spherical_start=False))
    assert sorted(plain[:, 0].tolist()) == pytest.approx([-9.0, 0.0, 9.0])


def test_more_clusters_than_different_embeddings() -> None:
    assert torch.isfinite(start_prototypes(torch.ones(4, 2), 3, fit())).all()
