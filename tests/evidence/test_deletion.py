"""Deletion and insertion against a loop over steps, and on a model whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, images_of

from medstrata.evidence.maps.deletion import STEPS, areas
from medstrata.evidence.maps.rule import Question, measure_cohort


def test_areas_written_out() -> None:
    model, images = TinyModel(2), images_of(2, 12)
    cohort = measure_cohort(model, images)
    x = model.tensor(images[:2])
    maps = torch.randn(2, 16, 12, generator=torch.Generator().manual_seed(0))
    question = Question(torch.tensor([0, 2]), torch.tensor([-1, 1]), cohort)
    found = areas(model, x, maps, question)
    reference = question.reference()
    for number, cluster in enumerate((0, 2)):
        order = np.argsort(-maps[number].numpy().ravel(), kind="stable")
        curves: dict[str, list[float]] = {"deletion": [], "insertion": []}
        for step in range(STEPS + 1):
            count = round(step / STEPS * 192)
            without, with_only = x[number].clone().flatten(), reference[number].clone().flatten()
            for place in order[:count].tolist():
                without[place], with_only[place] = reference[number].flatten()[place], x[number].flatten()[place]
            for name, image in (("deletion", without), ("insertion", with_only)):
                curves[name].append(float(model.soft_assignment(image.reshape(1, 1, 16, 12))[0, cluster]))
        for name, curve in curves.items():
            assert float(found[name][number]) == pytest.approx(np.trapezoid(curve, dx=1 / STEPS), abs=1e-5)


class Bright(TinyModel):
    """Cluster 1 where one voxel is bright: the right map is that voxel."""

    def soft_assignment(self, x: torch.Tensor) -> torch.Tensor:
        own = (x[:, 0, 3, 4] > 0).float() * 0.98 + 0.01
        return torch.stack([1 - own, own], dim=1)


def test_the_right_map_is_the_best_and_the_wrong_one_the_worst() -> None:
    model = Bright(2)
    images = np.zeros((8, 1, 16, 12), dtype=np.uint8)
    images[:4, :, 3, 4] = 255
    question = Question(torch.tensor([1]), torch.tensor([-1]), measure_cohort(model, images))
    right = torch.zeros(1, 16, 12)
    right[0, 3, 4] = 1
    best, worst = (areas(model, model.tensor(images[:1]), maps, question) for maps in (right, -right))
    assert float(best["deletion"]) < 0.05 and float(best["insertion"]) > 0.95
    assert float(worst["deletion"]) > 0.95 and float(worst["insertion"]) < 0.05
