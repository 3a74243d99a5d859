"""From plan to method: the plan's rules, over which stand the settings that a person wrote."""

from __future__ import annotations

from typing import Any

import pytest

from medstrata.images.plan import Plan
from medstrata.pipeline.fitting import method_of


@pytest.mark.parametrize(
    ("dimensions", "settings", "weight"),
    [(3, {}, 0.1), (2, {}, 0.01), (3, {"clustering_weight": 0.5}, 0.5)],
)
def test_volumes_have_the_weight_of_the_paper(dimensions: int, settings: dict[str, Any], weight: float) -> None:
    plan = Plan("subtypes", False, dimensions, [32] * dimensions, None, 1, 1, "uint8", {}, "dcec", 3, 8, 0, 1)
    plan.settings.update(settings)
    assert method_of(plan, "cpu").get_params()["clustering_weight"] == weight


def test_batch_and_augmentation_are_the_plans_and_what_learns_from_images_as_they_are_goes_on_so() -> None:
    for method, augmentation in (("dcec", "none"), ("contrastive", "ct")):
        plan = Plan("subtypes", False, 2, [32, 32], None, 1, 1, "uint8", {}, method, 3, 24, 0, 1, augmentation="ct")
        training = method_of(plan, "cpu").training
        assert (training.batch_size, training.augmentation) == (24, augmentation)
