"""A head on frozen vectors, learned from their neighbours alone: what a strong user would do with a foundation model.

    Adaloglou, Michels, Kalisch, Kollmann: Exploring the limits of deep image clustering using pretrained models. BMVC
    2023. arXiv:2303.17896 (TEMI).

Several student heads q_s, and a teacher q_t of each, the student's moving average, see a vector x and one of its
nearest neighbours x'. With each teacher's moving mean q(c) of the clusters' probabilities, each head minimises

    L = w(x, x') { - 1/2 log sum_c [q_s(c|x) q_t(c|x')]^beta / q(c)  -  1/2 log sum_c [q_s(c|x') q_t(c|x)]^beta / q(c) }
    w(x, x') = mean over the heads of sum_c q_t(c|x) q_t(c|x')                                                      (1)

so that pairs count little that the heads do not put together. The head with the lowest loss in the end is kept. Unlike
theirs, the heads are ``reading.Head``, with one hidden layer and no temperature. Shapes: n vectors of Z values, K
clusters.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import nn

from medstrata.learning.comm import generator
from medstrata.learning.graph import neighbours

BETA = 0.6
HEADS = 8
STEPS = (200, 1000)  # fewest and most
PASSES = 100  # over the vectors, within these bounds
BATCH = 512
NEIGHBOURS = 50
ONE_IN = 20  # vectors of a small set is a neighbour, since its clusters hold fewer than 50
TEACHER = 0.99  # what the teacher keeps of itself at each step
PRIOR = 0.9  # what the clusters' mean probabilities keep of themselves


class LogitHead(Protocol):
    """A module with ``logits``: vectors (n, Z) -> (n, K)."""

    def logits(self, directions: torch.Tensor) -> torch.Tensor:
        """Return the logits."""


def mutual_loss(student: torch.Tensor, teacher: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """One half of equation (1) without its 1/2 and w: log probabilities (n, K) of x and of x', prior q (K,) -> (n,)."""
    return -torch.logsumexp(BETA * (student + teacher) - prior.log(), dim=1)


def agreement(taught: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """w of equation (1): each teacher's log probabilities (n, K) of x and of x' -> (n,)."""
    return torch.stack([(x + y).exp().sum(1) for x, y in taught]).mean(0)


def learn_self_supervised(heads: list[nn.Module], directions: torch.Tensor, seed: int) -> tuple[nn.Module, list[float]]:
    """Learn ``heads`` on ``directions`` (N, Z); return the best and all final losses."""
    vectors, count = directions.cpu().numpy(), min(NEIGHBOURS, max(3, len(directions) // ONE_IN))
    near = torch.from_numpy(neighbours(vectors, vectors, count + 1))[:, 1:]
    chance = generator(seed, -10)
    learners = [_Learner(head) for head in heads]
    batch = min(BATCH, len(near))
    for _ in range(min(max(PASSES * len(near) // batch, STEPS[0]), STEPS[1])):
        index = torch.randint(len(near), (batch,), generator=chance)
        other = near[index, torch.randint(near.shape[1], (batch,), generator=chance)]
        x, y = directions[index.to(directions.device)], directions[other.to(directions.device)]
        taught = [learner.teach(x, y) for learner in learners]
        weights = agreement(taught)
        for learner, (taught_x, taught_y) in zip(learners, taught, strict=True):
            learner.step(x, y, taught_x, taught_y, weights)
    losses = [learner.recent for learner in learners]
    return heads[losses.index(min(losses))], losses


class _Learner:
    """A student head, its teacher, its optimiser, and the moving means of its clusters' probabilities and its loss."""

    def __init__(self, head: Any) -> None:
        self.student, self.teacher = head, copy.deepcopy(head)
        self.optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-4)
        self.prior: torch.Tensor | None = None
        self.recent = 0.0

    @torch.no_grad()
    def teach(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The teacher's log probabilities (n, K) of x and of x'."""
        taught_x, taught_y = (torch.log_softmax(self.teacher.logits(v), 1) for v in (x, y))
        mean = (taught_x.exp().mean(0) + taught_y.exp().mean(0)) / 2
        self.prior = mean if self.prior is None else torch.lerp(mean, self.prior, PRIOR)
        return taught_x, taught_y

    def step(
        self, x: torch.Tensor, y: torch.Tensor, taught_x: torch.Tensor, taught_y: torch.Tensor, weights: torch.Tensor
    ) -> None:
        """One step of the student on equation (1), then one of the teacher."""
        assert self.prior is not None, "teach comes first"
        prior = self.prior.clamp_min(1e-6)
        one, two = (torch.log_softmax(self.student.logits(v), 1) for v in (x, y))
        loss = (weights * (mutual_loss(one, taught_y, prior) + mutual_loss(two, taught_x, prior))).mean() / 2
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        with torch.no_grad():
            for kept, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                kept.lerp_(new, 1 - TEACHER)
        self.recent = 0.98 * self.recent + 0.02 * loss.item()
