"""A head on frozen vectors, learned from their neighbours alone: what a strong user would do with a foundation model.

    Adaloglou, Michels, Kalisch, Kollmann: Exploring the limits of deep image clustering using pretrained models. BMVC
    2023. arXiv:2303.17896 (TEMI).

A student head q_s and a teacher head q_t, the student's moving average, see a vector x and one of its nearest
neighbours x'. With the teacher's moving mean q(c) of the clusters' probabilities, each head minimises

    L = - 1/2 log sum_c [q_s(c|x) q_t(c|x')]^beta / q(c)  -  1/2 log sum_c [q_s(c|x') q_t(c|x)]^beta / q(c)         (1)

Several heads are learned from different weights; the one with the lowest loss in the end is kept. Shapes: n vectors of
Z values, K clusters.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import nn

from medstrata.learning.comm import generator
from medstrata.learning.graph import neighbours

BETA = 0.6
HEADS = 4
STEPS = (200, 1000)  # fewest and most
PASSES = 100  # over the vectors, within these bounds
BATCH = 512
NEIGHBOURS = 20
TEACHER = 0.99  # what the teacher keeps of itself at each step
PRIOR = 0.9  # what the clusters' mean probabilities keep of themselves


class LogitHead(Protocol):
    """A module with ``logits``: vectors (n, Z) -> (n, K)."""

    def logits(self, directions: torch.Tensor) -> torch.Tensor:
        """Return the logits."""


def mutual_loss(student: torch.Tensor, teacher: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """One half of equation (1) without its 1/2: log probabilities (n, K) of x and of x', prior q (K,) -> scalar."""
    return -torch.logsumexp(BETA * (student + teacher) - prior.log(), dim=1).mean()


def learn_self_supervised(heads: list[nn.Module], directions: torch.Tensor, seed: int) -> tuple[nn.Module, list[float]]:
    """Learn each of ``heads`` on ``directions`` (N, Z); return the best and all final losses."""
    near = torch.from_numpy(neighbours(directions.cpu().numpy(), directions.cpu().numpy(), NEIGHBOURS + 1))
    losses = [_learn(head, directions, near, generator(seed, -10, number)) for number, head in enumerate(heads)]
    return heads[losses.index(min(losses))], losses


def _learn(head: Any, directions: torch.Tensor, near: torch.Tensor, chance: torch.Generator) -> float:
    teacher = copy.deepcopy(head)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-4)
    prior: torch.Tensor | None = None
    recent = 0.0
    batch = min(BATCH, len(near))
    for _ in range(min(max(PASSES * len(near) // batch, STEPS[0]), STEPS[1])):
        index = torch.randint(len(near), (batch,), generator=chance)
        other = near[index, torch.randint(near.shape[1], (batch,), generator=chance)]
        x, y = directions[index.to(directions.device)], directions[other.to(directions.device)]
        with torch.no_grad():
            taught_x, taught_y = (torch.log_softmax(teacher.logits(v), 1) for v in (x, y))
            mean = (taught_x.exp().mean(0) + taught_y.exp().mean(0)) / 2
            prior = mean if prior is None else torch.lerp(mean, prior, PRIOR)
        one, two = (torch.log_softmax(head.logits(v), 1) for v in (x, y))
        floor = prior.clamp_min(1e-6)
        loss = (mutual_loss(one, taught_y, floor) + mutual_loss(two, taught_x, floor)) / 2
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(teacher.parameters(), head.parameters(), strict=True):
                kept.lerp_(new, 1 - TEACHER)
        recent = 0.98 * recent + 0.02 * loss.item()
    return recent
