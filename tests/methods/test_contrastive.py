"""Contrastive autoencoder: its losses against naive references, prototypes, sampling, walks."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from medstrata.errors import FitError
from medstrata.learning.adjustment import InBatches
from medstrata.learning.augment import AUGMENTATIONS, augment
from medstrata.learning.comm import ALONE
from medstrata.learning.fitting import Batch
from medstrata.learning.kmeans import elbow
from medstrata.learning.nets import Architecture
from medstrata.learning.train import Training
from medstrata.methods import contrastive as contrastive_module
from medstrata.methods.contrastive import ContrastiveAutoencoder, Objective, contrastive_loss
from planted import squares

QUICK = Training(30, 0, 4, 16, 2e-3, schedule="cosine", tolerance=0.0, augmentation="radiograph")


def quick(**settings: object) -> ContrastiveAutoencoder:
    own = {"n_clusters": 3, "assignment": "own", "architecture": Architecture((4, 8), 16), "training": QUICK}
    return ContrastiveAutoencoder(**{**own, **settings})  # type: ignore[arg-type]


def test_contrastive_loss_is_equation_2() -> None:
    first, second = torch.randn(4, 3), torch.randn(4, 3)
    views = torch.cat([first, second]).tolist()

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    naive = 0.0
    for i in range(8):
        others = sum(math.exp(cosine(views[i], views[a]) / 0.3) for a in range(8) if a != i)
        naive -= math.log(math.exp(cosine(views[i], views[(i + 4) % 8]) / 0.3) / others) / 8
    assert float(contrastive_loss(first, second, 0.3)) == pytest.approx(naive, rel=1e-4)


def test_one_pair_has_no_contrast_and_no_nan() -> None:
    assert float(contrastive_loss(torch.randn(1, 3), torch.randn(1, 3), 0.3)) == pytest.approx(0, abs=1e-6)


def test_prototypes_move_towards_the_means_of_the_batch() -> None:
    images, _ = squares(24)
    model = quick(objective=Objective(rate=0.25)).fit(images)
    model.network_.prototypes = torch.tensor([[0.0, 4.0], [4.0, 0.0], [8.0, 8.0]])
    c = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    model._move_prototypes(torch.tensor([[2.0, 0.0], [8.0, 8.0], [6.0, 0.0]]), c, ALONE)
    assert model.network_.prototypes.tolist() == [[1.0, 3.0], [5.0, 2.0], [8.0, 8.0]]


@pytest.mark.parametrize(("contrastive", "reconstruction"), [(1.0, 0.1), (0.5, 0.1), (0.0, 1.0)])
def test_losses_are_equations_1_and_3(contrastive: float, reconstruction: float) -> None:
    images, _ = squares(24)
    model = quick(objective=Objective(sharpness=0.2)).fit(images)
    network, x, how = model.network_, model.tensor(images[:6]), AUGMENTATIONS["radiograph"]
    chance = torch.Generator().manual_seed(2)
    with torch.no_grad():
        views = torch.cat([augment(x, how, chance), augment(x, how, chance)])
        h = network.encoder(views)
        cosines = normalize(h) @ normalize(network.prototypes).T
        c = torch.softmax(cosines / 0.2, 1)
        error = (network.decode(h[:6], c[:6]) - views[:6]).square().mean()
        contrast = contrastive_loss(*network.projection(h).chunk(2), 0.3)
        batch = Batch(x, torch.arange(6), torch.Generator().manual_seed(2))
        found = model._losses(batch, contrastive, reconstruction)
    assert found["loss"].item() == pytest.approx(float(contrastive * contrast + reconstruction * 2 * error), rel=1e-4)


def test_decoder_is_conditioned_on_the_assignment() -> None:
    images, _ = squares(60)
    model = quick().fit(images)
    h = torch.zeros(3, 16)
    decoded = model.network_.decode(h, torch.eye(3))
    assert not torch.allclose(decoded[0], decoded[1])
    assert float(model.network_.conditions.detach().abs().sum()) > 0, "it was trained"


def test_as_published_clusters_without_the_contrastive_term() -> None:
    images, _ = squares(24)
    model = ContrastiveAutoencoder.as_published(3)
    assert model.objective.contrastive == 0 and model.objective.rate == 1 and model.assignment == "own"
    training = Training(2, 0, 2, 16, preprocessing="unit", augmentation="radiograph", spherical_start=False)
    model.set_params(training=training, architecture=Architecture((4, 8), 16)).fit(images)
    phases = {record["phase"]: record for record in model.history_}
    assert "contrastive_loss" in phases["warm-up"] and "contrastive_loss" not in phases["clustering"]
    batch = Batch(model.tensor(images[:4]), torch.arange(4), torch.Generator())
    losses = model._loss(batch)
    assert losses["loss"].item() == pytest.approx(losses["reconstruction_loss"].item())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_finds_planted_groups(dimensions: int) -> None:
    images, groups = squares(dimensions=dimensions)
    model = quick().fit(images)
    assert len({(int(a), int(b)) for a, b in zip(groups, model.labels_, strict=True)}) == 3


def test_samples_reconstructions_and_walks() -> None:
    images, _ = squares(90)
    model = quick(
        objective=Objective(reconstruction=1.0), training=Training(60, 0, 4, 16, 2e-3, augmentation="radiograph")
    ).fit(images)
    assert np.square(model.reconstruct(images) - images).mean() < np.square(images - images.mean(0)).mean()
    assert model.sample(5, 1).shape == (5, 1, 16, 16)
    steps = model.walk(0, 2, steps=5)
    assert steps.shape == (5, 1, 16, 16)
    assert model.predict(steps[[0, -1]]).tolist() == [0, 2]
    with pytest.raises(FitError, match="no cluster 9"):
        model.walk(0, 9)
    model.network_.gaussians.sizes[2] = 0
    with pytest.raises(FitError, match="holds no training image"):
        model.walk(0, 2)


def test_step_4_trains_the_decoder_and_nothing_else() -> None:
    images, _ = squares(60)
    without = quick(objective=Objective(decoding=0.0)).fit(images)
    model = quick(objective=Objective(decoding=2.0)).fit(images)
    assert [record["phase"] for record in model.history_].count("decoding") == 60
    assert np.array_equal(model.predict_proba(images), without.predict_proba(images))
    assert np.array_equal(model.transform(images), without.transform(images))
    before, after = (np.square(of.reconstruct(images) - images).mean() for of in (without, model))
    assert after < 0.9 * before


def test_samples_that_the_model_puts_elsewhere_are_told() -> None:
    images, _ = squares(60)
    model = quick().fit(images)
    model.network_.gaussians.means[1] = model.network_.gaussians.means[0]
    model.network_.gaussians.factors[1] = 0
    with pytest.warns(UserWarning, match="only 0 of 5 samples of cluster 1"):
        assert model.sample(5, 1).shape == (5, 1, 16, 16)


def test_own_clusters_are_as_many_as_the_elbow_says(monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = squares(24)
    monkeypatch.setattr(contrastive_module, "elbow", lambda *_: 5)
    short = Training(1, 0, 1, 16, augmentation="radiograph")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # after so short a training clusters may be empty
        assert quick(n_clusters="auto", assignment="own", training=short).fit(images).n_clusters_ == 5


def test_training_stops_when_the_labels_have_settled() -> None:
    images, _ = squares(24)
    for tolerance, epochs in ((0.0, 6), (1.01, 1)):  # of a share of at most 1, any change is below 1.01
        training = Training(2, 0, 6, 16, tolerance=tolerance, target_interval=2, augmentation="radiograph")
        history = quick(assignment="own", training=training).fit(images).history_
        clustering = [record for record in history if record["phase"] == "clustering"]
        assert len(clustering) == epochs
        assert (clustering[-1].get("stopped") == "labels settled") == (tolerance > 0)
        assert history[-1]["phase"] == "decoding", "the phase after it is not left out"


@pytest.mark.parametrize("given", [("a", 1, 3), (0, 1.0, 3), (0, 7, 3), (0, 1, 1), (0, 1, 2.5), (0, -1, 3)])
def test_walks_that_cannot_be_are_told(given: tuple[Any, Any, Any]) -> None:
    model = quick(training=Training(1, 0, 1, 16, augmentation="radiograph")).fit(squares(24)[0])
    with pytest.raises(FitError, match=r"cluster|steps"):
        model.walk(*given)


def test_images_on_another_scale_and_in_batches_are_rebuilt() -> None:
    images = squares(24)[0].astype(np.float32)
    model = quick(training=Training(1, 0, 1, 16, augmentation="radiograph")).fit(images)
    in_batches = InBatches(images, np.zeros(24, np.int64), 1)
    assert np.array_equal(model.reconstruct(in_batches), model.reconstruct(images))
    with pytest.warns(UserWarning, match="same scale"):
        model.reconstruct(images / 1000)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_that_are_not_finite_are_not_rebuilt(value: float) -> None:
    images = squares(24)[0].astype(np.float32)
    model = quick(training=Training(1, 0, 1, 16, augmentation="radiograph")).fit(images)
    images[5, 0, 3, 3] = value
    with pytest.raises(FitError, match="Image 5 holds NaN or infinite"):
        model.reconstruct(images)


def test_elbow_finds_three_groups() -> None:
    centers = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    z = centers.repeat(30, 1) + 0.3 * torch.randn(90, 2, generator=torch.Generator().manual_seed(0))
    assert elbow(z, torch.Generator().manual_seed(0)) == 3
    assert elbow(z[:2], torch.Generator()) == 2
