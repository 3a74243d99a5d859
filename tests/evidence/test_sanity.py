"""What maps depend on: models and rules for which the answer is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, images_of
from torch import nn

from medstrata.evidence.maps import sanity
from medstrata.evidence.maps.controls import Novelty
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.rule import Explainable, Facts, Question, measure_cohort


@dataclass(frozen=True)
class Itself:
    """The image as its own map."""

    needs_cohort = False
    name = "itself"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        return x.sum(1), {}


def asked(model: TinyModel, images: np.ndarray) -> tuple[torch.Tensor, Question]:
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
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    changed = sanity.shuffled(model, 1.0)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, before[name])
        other = changed.encoder.state_dict()[name]
        assert torch.equal(other.flatten().sort().values, value.flatten().sort().values)
        assert value.numel() < 5 or not torch.equal(other, value)
    half = sanity.shuffled(model, 0.25)  # of 6 tensors the last 2: the embedding
    assert torch.equal(half.encoder[0].weight, model.encoder[0].weight)
    assert not torch.equal(half.embedding.weight, model.embedding.weight)


def test_a_reader_counts_as_last_whatever_the_order_of_the_parts() -> None:
    model = TinyModel(2)
    model.__dict__ = {"reader_": nn.Linear(5, 3), **model.__dict__}
    changed = sanity.shuffled(model, 0.125)  # 1 of 8 tensors: the bias of the reader
    assert torch.equal(changed.embedding.weight, model.embedding.weight)
    assert torch.equal(changed.reader_.bias.sort().values, model.__dict__["reader_"].bias.sort().values)


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
