"""What maps depend on: models and rules for which the answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, images_of

from medstrata.evidence.maps import sanity
from medstrata.evidence.maps.controls import Novelty
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.rule import Explainable, Facts, Question, measure_cohort
from medstrata.methods import METHODS
from medstrata.methods.settings import make_method
from planted import squares


@dataclass(frozen=True)
class Itself:
    """The image as its own map."""

    needs_cohort = False
    name = "itself"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        return x.sum(1), {}


def asked(model: Any, images: np.ndarray) -> tuple[torch.Tensor, Question]:
    x = model.tensor(images)
    cluster = model.soft_assignment(x).argmax(1)
    return x, Question(cluster, torch.full_like(cluster, -1), measure_cohort(model, images))


def test_cluster_sensitivity_compares_with_the_runner_up() -> None:
    model = TinyModel(2)
    x, question = asked(model, images_of(2))
    rule = IntegratedGradients()
    maps, _ = rule.explain(model, x, question)
    found = sanity.cluster_sensitivity(model, x, question, rule, maps)
    second = model.soft_assignment(x).argsort(1)[:, -2]
    rival, _ = rule.explain(model, x, Question(second, question.against, question.cohort))
    for number in range(len(x)):
        expected = np.corrcoef(maps[number].clamp(min=0).ravel(), rival[number].clamp(min=0).ravel())[0, 1]
        assert float(found[number]) == pytest.approx(expected, abs=1e-5)
    same = sanity.cluster_sensitivity(model, x, question, Novelty(), Novelty().explain(model, x, question)[0])
    np.testing.assert_allclose(same, 1, atol=1e-6)


def test_shuffling_keeps_the_values_and_leaves_the_model_alone() -> None:
    model = TinyModel(2)
    x, question = asked(model, images_of(2))
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    changed = sanity.shuffled(model, 1.0, x, question)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, before[name])
        other = changed.encoder.state_dict()[name]
        assert torch.equal(other.flatten().sort().values, value.flatten().sort().values)
        assert value.numel() < 5 or not torch.equal(other, value)
    part = sanity.shuffled(model, 0.34, x, question)  # of 6 tensors the last 2: the embedding
    assert torch.equal(part.encoder[0].weight, model.encoder[0].weight)
    assert not torch.equal(part.embedding.weight, model.embedding.weight)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("features", "pca")])
@pytest.mark.parametrize("assignment", ["own", "graph"])
def test_a_quarter_of_the_weights_changes_the_assignment_of_every_method(method: str, assignment: str) -> None:
    """The last tensors are those next to the assignment, not a decoder's; the first layers stay."""
    images, _ = squares(30)
    settings: dict[str, object] = {
        "n_clusters": 3,
        "training": {"warmup_epochs": 3, "warmup_steps": 0, "epochs": 2, "batch_size": 16},
        "architecture": {"widths": [4, 8], "embedding_size": 8},
    }
    if method == "auto" and assignment == "own":
        pytest.skip("has one assignment only")
    model = make_method(method, settings | {"assignment": assignment}).fit(images)
    x, question = asked(model, images)
    changed = sanity.shuffled(model, 0.25, x, question)
    assert (changed.soft_assignment(x) - model.soft_assignment(x)).abs().max() > 1e-3
    assert torch.equal(sanity._weights(changed)[0], sanity._weights(model)[0])


def test_weights_matter_to_gradients_and_not_to_the_image_itself() -> None:
    model = TinyModel(3)
    x, question = asked(model, images_of(3))
    for rule, fixed in ((IntegratedGradients(), False), (Novelty(), True)):
        maps, _ = rule.explain(model, x, question)
        found = sanity.after_shuffling(model, x, question, rule, maps)
        assert set(found) == {"shuffled_25", "shuffled_50", "shuffled_100"}
        assert (found["shuffled_100"].min() > 0.999) == fixed


def test_pairs_are_of_different_images() -> None:
    maps = torch.eye(6).reshape(6, 2, 3)
    assert len(sanity.of_other_images(maps)) == sanity.PAIRS and sanity.of_other_images(maps).max() < 0.5
    assert not len(sanity.of_other_images(maps[:1]))


def test_a_rule_that_moves_with_the_image_survives_a_move_and_one_that_does_not_does_not() -> None:
    model, images = TinyModel(3), images_of(3)
    x, question = asked(model, images)
    follows = sanity.when_changed(model, x, question, Itself(), Itself().explain(model, x, question)[0])
    np.testing.assert_allclose(follows["moved"], 1, atol=1e-5)
    assert "mirrored" not in follows
    stays = sanity.when_changed(model, x, question, Novelty(), torch.rand(x.shape[0], *x.shape[2:]))
    assert stays["moved"].abs().max() < 0.5 and stays["noise"].abs().max() < 0.5
