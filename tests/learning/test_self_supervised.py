"""The loss of the self-supervised head against its written equation."""

from __future__ import annotations

import math

import pytest
import torch

from medstrata.learning.self_supervised import BETA, mutual_loss


def test_mutual_loss_is_equation_1() -> None:
    one, two = torch.softmax(torch.randn(5, 3), 1), torch.softmax(torch.randn(5, 3), 1)
    prior = [0.5, 0.3, 0.2]
    naive = 0.0
    for i in range(5):
        naive -= math.log(sum((float(one[i, c]) * float(two[i, c])) ** BETA / prior[c] for c in range(3))) / 5
    assert float(mutual_loss(one.log(), two.log(), torch.tensor(prior))) == pytest.approx(naive, rel=1e-4)


def test_certain_and_agreeing_heads_have_a_finite_loss_and_gradient() -> None:
    student = torch.tensor([[80.0, 0.0], [0.0, 80.0]], requires_grad=True)
    logs = torch.log_softmax(student, 1)
    loss = mutual_loss(logs, logs.detach(), torch.tensor([0.5, 0.5]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(0.5), rel=1e-4)
    assert student.grad is not None and torch.isfinite(student.grad).all()
