"""DCEC against naive references of its equations, on planted groups, killed and resumed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medstrata.learning.fitting import Batch
from medstrata.learning.nets import Architecture
from medstrata.learning.train import Training
from medstrata.methods.dcec import DCEC
from planted import squares

QUICK = Training(warmup_epochs=4, warmup_steps=0, epochs=4, batch_size=16)


def quick(**settings: object) -> DCEC:
    own = {"n_clusters": 3, "assignment": "own", "architecture": Architecture((4, 8), 6), "training": QUICK}
    return DCEC(**{**own, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_finds_planted_groups_and_predict_equals_labels(dimensions: int) -> None:
    images, groups = squares(dimensions=dimensions)
    before = images.copy()
    model = quick().fit(images)
    assert len({(int(a), int(b)) for a, b in zip(groups, model.labels_, strict=True)}) == 3
    assert np.array_equal(model.predict(images), model.labels_)
    assert np.allclose(model.predict_proba(images).sum(1), 1, atol=1e-5)
    assert model.transform(images).shape == (60, 6)
    assert np.array_equal(images, before)


def test_joint_loss_is_equation_3() -> None:
    images, _ = squares()
    model = quick(clustering_weight=0.7).fit(images)
    x, target = model.tensor(images[:4]), torch.softmax(torch.randn(4, 3), 1)
    losses = model._joint_loss(Batch(x, torch.arange(4), torch.Generator()), target)
    z = model.network_.encoder(x).detach().numpy()
    error = (model.network_.decode(torch.from_numpy(z)).detach().numpy() - x.numpy()) ** 2
    similarity = 1 / (1 + ((z[:, None] - model.network_.prototypes.detach().numpy()[None]) ** 2).sum(2))
    q = similarity / similarity.sum(1, keepdims=True)
    kl = (target.numpy() * np.log(target.numpy() / q)).sum() / 4
    assert losses["reconstruction_loss"].item() == pytest.approx(error.mean(), rel=1e-4)
    assert losses["clustering_loss"].item() == pytest.approx(kl, rel=1e-4)
    assert losses["loss"].item() == pytest.approx(error.mean() + 0.7 * kl, rel=1e-4)


def test_stops_when_labels_settle_and_says_so() -> None:
    images, _ = squares()
    model = quick(training=Training(3, 0, 50, batch_size=16, tolerance=0.01)).fit(images)
    assert model.history_[-1]["stopped"] == "labels settled"
    assert model.history_[-1]["epoch"] < 50


def test_as_published_has_the_settings_of_the_authors() -> None:
    model = DCEC.as_published(4)
    assert (model.architecture, model.clustering_weight) == (Architecture((16, 32, 64), 60), 0.1)
    assert model.assignment == "own" and model.training.preprocessing == "published"
    assert (model.training.warmup_epochs, model.training.epochs, model.training.target_interval) == (100, 100, 10)
    model._prepare((1, 88, 88, 88), _published())
    assert model.network_.encoder.feature_shape == (64, 11, 11, 11)
    assert model.network_.encoder.embedding.in_features == 85184


def _published() -> object:
    from medstrata.learning.batches import Preprocessing

    return Preprocessing(torch.zeros(1), 255.0, 80.0)


def test_as_published_runs_and_replaces_the_background() -> None:
    images, _ = squares()
    images[:, :, :, 14:] = 0
    model = DCEC.as_published(3).set_params(training=Training(4, 0, 4, 16, preprocessing="published")).fit(images)
    mean = images[images != 0].mean()
    assert float(model.tensor(images[:1])[0, 0, 0, 15]) == pytest.approx(mean / images.max(), rel=1e-4)
    assert model.background == pytest.approx(mean / images.max(), rel=1e-4)
