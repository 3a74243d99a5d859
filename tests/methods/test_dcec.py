"""DCEC against naive references of its equations, on planted groups, killed and resumed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import squares

from medstrata.errors import FitError, RunFolderError
from medstrata.learning.train import Training
from medstrata.methods.dcec import DCEC, clustering_loss, soft_assignment, target_distribution

QUICK = Training(warmup_epochs=4, warmup_steps=0, epochs=4, batch_size=16)


def quick(**settings: object) -> DCEC:
    return DCEC(**{"n_clusters": 3, "embedding_size": 6, "widths": (4, 8), "training": QUICK, **settings})  # type: ignore[arg-type]


def test_soft_assignment_is_equation_1() -> None:
    z, mu = torch.randn(5, 4), torch.randn(3, 4)
    q = soft_assignment(z, mu)
    for i in range(5):
        similarity = [1 / (1 + sum((float(z[i, d]) - float(mu[j, d])) ** 2 for d in range(4))) for j in range(3)]
        assert q[i].tolist() == pytest.approx([s / sum(similarity) for s in similarity], rel=1e-5)


def test_target_distribution_is_equation_2() -> None:
    q = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    f = [0.9 + 0.6 + 0.2, 0.1 + 0.4 + 0.8]
    for row, got in zip(q.tolist(), target_distribution(q).tolist(), strict=True):
        weighted = [row[j] ** 2 / f[j] for j in range(2)]
        assert got == pytest.approx([w / sum(weighted) for w in weighted], rel=1e-5)


def test_clustering_loss_sums_over_clusters_and_averages_over_images() -> None:
    p = torch.tensor([[0.7, 0.3], [0.5, 0.5]])
    q = torch.tensor([[0.6, 0.4], [0.9, 0.1]])
    naive = sum(p[i, j] * math.log(p[i, j] / q[i, j]) for i in range(2) for j in range(2)) / 2
    assert float(clustering_loss(p, q)) == pytest.approx(float(naive), rel=1e-5)


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


def test_same_seed_gives_the_same_labels_and_weights() -> None:
    images, _ = squares()
    one, two = quick().fit(images), quick().fit(images)
    assert np.array_equal(one.labels_, two.labels_)
    assert np.array_equal(one.transform(images), two.transform(images))


def test_fit_does_not_read_labels() -> None:
    images, groups = squares()
    with pytest.raises(FitError, match="never sees them"):
        quick().fit(images, groups)  # type: ignore[arg-type]


class Killed(Exception):
    """Stands for kill -9 between two epochs."""


@pytest.mark.parametrize("after", range(1, 8))
def test_killed_after_any_epoch_and_resumed_gives_the_same_result(after: int, tmp_path: Path) -> None:
    images, _ = squares()
    training = Training(4, 0, 4, batch_size=16, tolerance=0.0, target_interval=2)
    whole = quick(training=training).fit(images, checkpoint=tmp_path / "whole.safetensors")
    epochs = 0

    def kill(what: str, done: int, total: int) -> None:
        nonlocal epochs
        epochs += what.endswith("epochs")
        if epochs > after:
            raise Killed

    with pytest.raises(Killed):
        quick(training=training).fit(images, checkpoint=tmp_path / "killed.safetensors", progress=kill)
    resumed = quick(training=training).fit(images, checkpoint=tmp_path / "killed.safetensors")
    assert np.array_equal(resumed.transform(images), whole.transform(images))
    assert np.array_equal(resumed.labels_, whole.labels_)
    assert resumed.history_ == whole.history_


def test_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    images, _ = squares()
    quick().fit(images, checkpoint=tmp_path / "c.safetensors")
    with pytest.raises(RunFolderError, match="other settings"):
        quick(random_state=1).fit(images, checkpoint=tmp_path / "c.safetensors")


def test_damaged_checkpoint_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    images, _ = squares()
    (tmp_path / "c.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(RunFolderError, match="Delete it"):
        quick().fit(images, checkpoint=tmp_path / "c.safetensors")


def test_empty_cluster_gets_the_farthest_embedding() -> None:
    images, _ = squares()
    model = quick().fit(images)
    z = torch.tensor([[0.0] * 6, [0.1] * 6, [9.0] * 6])
    with torch.no_grad():
        model.network_.prototypes.copy_(torch.tensor([[0.0] * 6, [0.1] * 6, [50.0] * 6]))
    assert model._repair_empty(z, torch.tensor([0, 1, 1])) == 1
    assert model.network_.prototypes[2].tolist() == [9.0] * 6


def test_stops_when_labels_settle_and_says_so() -> None:
    images, _ = squares()
    model = quick(training=Training(3, 0, 50, batch_size=16, tolerance=0.01)).fit(images)
    assert model.history_[-1]["stopped"] == "labels settled"
    assert model.history_[-1]["epoch"] < 50


def test_as_published_has_the_settings_of_the_authors() -> None:
    model = DCEC.as_published(4)
    assert (model.embedding_size, model.widths, model.clustering_weight) == (60, (16, 32, 64), 0.1)
    assert model.training == Training(100, 0, 100, 32, 1e-3, 10, 0.0, False)
    model._prepare((1, 88, 88, 88), _published())
    assert model.network_.autoencoder.feature_shape == (64, 11, 11, 11)
    assert model.network_.autoencoder.embedding.in_features == 85184


def _published() -> object:
    from medstrata.learning.batches import Preprocessing

    return Preprocessing(torch.zeros(1), 255.0, 80.0)


def test_as_published_runs_and_replaces_the_background() -> None:
    images, _ = squares()
    images[:, :, :, 14:] = 0
    model = DCEC.as_published(3).set_params(training=QUICK).fit(images)
    mean = images[images != 0].mean()
    assert float(model.tensor(images[:1])[0, 0, 0, 15]) == pytest.approx(mean / images.max(), rel=1e-4)
    assert model.background == pytest.approx(mean / images.max(), rel=1e-4)
