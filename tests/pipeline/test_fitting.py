"""From plan to method: the plan's rules, over which stand the settings that a person wrote."""

from __future__ import annotations

from medstrata.images.plan import Plan
from medstrata.images.planning import AUGMENTING
from medstrata.learning.train import Training
from medstrata.methods import METHODS
from medstrata.methods.dcec import DCEC
from medstrata.methods.settings import make_method
from medstrata.pipeline.fitting import method_of


def test_the_plans_settings_are_the_methods() -> None:
    plan = Plan("subtypes", False, 3, [32] * 3, None, 1, 1, "uint8", {}, "dcec", 3, 8, 0, 1)
    assert method_of(plan, "cpu").get_params() == {
        **DCEC(3, device="cpu").get_params(),
        "training": Training(batch_size=8),
    }
    plan.settings.update({"clustering_weight": 0.5, "training": {"epochs": 2}})
    model = method_of(plan, "cpu")
    assert model.get_params()["clustering_weight"] == 0.5 and model.training == Training(batch_size=8, epochs=2)


def test_what_the_plan_knows_of_methods_is_so() -> None:
    """It never loads torch, so it keeps a list of its own."""
    for name in METHODS:
        training = make_method(name, {}).get_params(deep=False).get("training")
        assert (name in AUGMENTING) == (training is not None and training.augmentation != "none")


def test_batch_and_augmentation_are_the_plans_and_what_learns_from_images_as_they_are_goes_on_so() -> None:
    for method, augmentation in (("dcec", "none"), ("contrastive", "ct")):
        plan = Plan("subtypes", False, 2, [32, 32], None, 1, 1, "uint8", {}, method, 3, 24, 0, 1, augmentation="ct")
        training = method_of(plan, "cpu").training
        assert (training.batch_size, training.augmentation) == (24, augmentation)
