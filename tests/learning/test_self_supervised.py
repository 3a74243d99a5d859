"""The loss of the self-supervised head against its written equation."""

from __future__ import annotations

import math

import pytest
import torch

from medstrata.learning.reading import read_clusters
from medstrata.learning.self_supervised import BETA, agreement, mutual_loss


def test_mutual_loss_is_equation_1() -> None:
    one, two = torch.softmax(torch.randn(5, 3), 1), torch.softmax(torch.randn(5, 3), 1)
    prior = [0.5, 0.3, 0.2]
    naive = 0.0
    for i in range(5):
        naive -= math.log(sum((float(one[i, c]) * float(two[i, c])) ** BETA / prior[c] for c in range(3))) / 5
    assert float(mutual_loss(one.log(), two.log(), torch.tensor(prior)).mean()) == pytest.approx(naive, rel=1e-4)


def test_pairs_weigh_as_much_as_the_teachers_put_them_together() -> None:
    certain = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).clamp_min(1e-9).log()
    half = torch.tensor([[0.5, 0.5], [0.0, 1.0]]).clamp_min(1e-9).log()
    assert agreement([(certain, half), (certain, certain)]).tolist() == pytest.approx([0.75, 0.5], abs=1e-6)


def test_the_head_finds_groups_of_neighbours_and_one_seed_gives_one_head() -> None:
    groups = torch.arange(120) % 3
    vectors = 4 * torch.eye(3)[groups] + 0.3 * torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    found = [read_clusters(vectors, "self-supervised", 3, 0).reader(vectors) for _ in range(2)]
    assert torch.equal(*found)
    labels = found[0].argmax(1)
    assert len({(int(a), int(b)) for a, b in zip(groups, labels, strict=True)}) == 3


def test_certain_and_agreeing_heads_have_a_finite_loss_and_gradient() -> None:
    student = torch.tensor([[80.0, 0.0], [0.0, 80.0]], requires_grad=True)
    logs = torch.log_softmax(student, 1)
    loss = mutual_loss(logs, logs.detach(), torch.tensor([0.5, 0.5])).mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(0.5), rel=1e-4)
    assert student.grad is not None and torch.isfinite(student.grad).all()
