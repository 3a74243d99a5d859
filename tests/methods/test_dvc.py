"""DVC: its losses against naive references, sampling, the settings of the authors' code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medstrata.errors import FitError
from medstrata.learning.fitting import Batch
from medstrata.learning.nets import Architecture
from medstrata.learning.train import Training
from medstrata.methods.dvc import DVC, NOISE, divergence_from_prior
from planted import squares

QUICK = Training(warmup_epochs=30, warmup_steps=0, epochs=4, batch_size=16)


def quick(**settings: object) -> DVC:
    own = {"n_clusters": 3, "assignment": "own", "architecture": Architecture((4, 8), 6), "training": QUICK}
    return DVC(**{**own, **settings})  # type: ignore[arg-type]


def test_divergence_from_the_prior_is_equation_1() -> None:
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    naive = 0.0
    for i in range(5):
        for d in range(3):
            m, s = float(mean[i, d]), float(log_variance[i, d])
            naive += 0.5 * (math.exp(s) + m * m - 1 - s) / 5
    assert float(divergence_from_prior(mean, log_variance)) == pytest.approx(naive, rel=1e-5)


@pytest.mark.parametrize("preprocessing", ["centred", "unit"])
def test_lower_bound_is_equation_1(preprocessing: str) -> None:
    images, _ = squares(24)
    training = Training(2, 0, 0, batch_size=16, preprocessing=preprocessing)
    model = quick(training=training).fit(images)
    x = model.tensor(images[:4])
    losses, mean = model._lower_bound(Batch(x, torch.arange(4), torch.Generator().manual_seed(1)), beta=0.5)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    log_variance = model.network_.latent(model.network_.encoder.features(x))[1]
    decoded = model.network_.decode(mean + noise * (log_variance / 2).exp()).detach().double().numpy()
    truth = x.double().numpy()
    if preprocessing == "unit":
        error = -(truth * np.log(decoded) + (1 - truth) * np.log(1 - decoded)).mean()
        scale = 1 / 256
    else:
        error, scale = ((decoded - truth) ** 2).mean(), 2 * NOISE / 256
    assert losses["reconstruction_loss"].item() == pytest.approx(error, rel=1e-3)
    prior = divergence_from_prior(mean, log_variance).item()
    assert losses["loss"].item() == pytest.approx(error + 0.5 * scale * prior, rel=1e-3)


def test_joint_loss_is_equation_2() -> None:
    images, _ = squares(24)
    model = quick(clustering_weight=0.7, beta=0.3).fit(images)
    x, target = model.tensor(images[:4]), torch.softmax(torch.randn(4, 3), 1)
    batch = Batch(x, torch.arange(4), torch.Generator().manual_seed(1))
    losses = model._joint_loss(batch, target)
    mean = model.network_.latent(model.network_.encoder.features(x))[0].detach().numpy()
    similarity = 1 / (1 + ((mean[:, None] - model.network_.prototypes.detach().numpy()[None]) ** 2).sum(2))
    q = similarity / similarity.sum(1, keepdims=True)
    kl = (target.numpy() * np.log(target.numpy() / q)).sum() / 4
    prior = 0.3 * 2 * NOISE / 256 * losses["prior_loss"].item()
    assert losses["loss"].item() == pytest.approx(losses["reconstruction_loss"].item() + prior + 0.7 * kl, rel=1e-4)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_finds_planted_groups_by_latent_means(dimensions: int) -> None:
    images, groups = squares(dimensions=dimensions)
    model = quick().fit(images)
    assert len({(int(a), int(b)) for a, b in zip(groups, model.labels_, strict=True)}) == 3
    assert np.array_equal(model.transform(images), model.transform(images)), "latent means are not sampled"


def test_samples_of_a_cluster_are_new_images_of_it() -> None:
    images, _ = squares(90)
    model = quick(training=Training(60, 0, 4, batch_size=16)).fit(images)
    for cluster in range(3):
        drawn = model.sample(20, cluster)
        assert drawn.shape == (20, 1, 16, 16) and drawn.std(0).max() > 0
        assert (model.predict(drawn) == cluster).mean() >= 0.9
        members = images[model.labels_ == cluster]
        assert abs(drawn.mean() - members.mean()) < 10, "in the units of the images"
    assert np.array_equal(model.sample(2, 1), model.sample(2, 1))
    assert not np.array_equal(model.sample(2, 1), model.sample(2, 1, random_state=1))


def test_reconstruction_is_nearer_than_the_mean_image() -> None:
    images, _ = squares(90)
    model = quick(training=Training(60, 0, 2, batch_size=16)).fit(images)
    error = np.square(model.reconstruct(images) - images).mean()
    assert error < 0.5 * np.square(images - images.mean(0)).mean()


def test_no_such_cluster_is_told() -> None:
    images, _ = squares(24)
    with pytest.raises(FitError, match="not fitted"):
        quick().sample(1, 0)
    model = quick().fit(images)
    with pytest.raises(FitError, match="no cluster 7"):
        model.sample(1, 7)
    for count, cluster in ((-2, 0), (0, 0), (1.5, 0), (1, "a"), (1, -1)):
        with pytest.raises(FitError, match="whole number of at least"):
            model.sample(count, cluster)  # type: ignore[arg-type]


def test_as_published_needs_a_number_of_clusters() -> None:
    with pytest.raises(FitError, match="n_clusters as a number"):
        DVC.as_published("auto")  # type: ignore[arg-type]


def test_as_published_has_the_settings_of_the_authors() -> None:
    model = DVC.as_published(3)
    assert (model.architecture, model.beta, model.assignment) == (Architecture((6, 16, 32, 64), 10), 0.0, "own")
    assert model.clustering_weight == pytest.approx(0.1 / 3)
    assert (model.training.warmup_epochs, model.training.epochs, model.training.batch_size) == (100, 20, 256)
    images, _ = squares(24)
    quickly = Training(30, 0, 2, 16, preprocessing="unit")
    assert 0 <= model.set_params(training=quickly).fit(images).reconstruct(images).min() <= 255
