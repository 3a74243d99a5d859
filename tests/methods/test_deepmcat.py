"""DeepMCAT: its loss and merging against naive references, uniform drawing, the memory bank, rare kinds."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch.nn.functional import normalize

from medstrata.learning.augment import AUGMENTATIONS, augment
from medstrata.learning.fitting import Batch, Fit
from medstrata.learning.nets import Architecture
from medstrata.learning.train import Training
from medstrata.methods.deepmcat import SMALL_CROP, DeepMCAT, pseudo_label_loss, uniform_order
from planted import squares

QUICK = Training(20, 0, 6, 16, 2e-3, 0.01, "cosine", tolerance=0.0, preprocessing="scaled", augmentation="radiograph")


def quick(**changes: object) -> DeepMCAT:
    own = {"n_clusters": 3, "assignment": "own", "architecture": Architecture((4, 8), 8), "training": QUICK}
    return DeepMCAT(**{**own, **changes})  # type: ignore[arg-type]


def test_loss_is_equation_1() -> None:
    chance = torch.Generator().manual_seed(0)
    v = normalize(torch.randn(6, 4, generator=chance))  # 3 crops of 2 images
    kept = {
        "prototypes": normalize(torch.randn(5, 4, generator=chance)),
        "sizes": torch.tensor([2, 3]),
    }
    labels, naive = torch.tensor([[0, 2], [1, 0]]), 0.0
    heads = [kept["prototypes"][:2].tolist(), kept["prototypes"][2:].tolist()]
    for crop in range(3):
        for place in range(2):
            one = v[2 * crop + place].tolist()
            for head, prototypes in enumerate(heads):
                logits = [sum(a * b for a, b in zip(one, c, strict=True)) / 0.1 for c in prototypes]
                chosen = logits[int(labels[place, head])]
                naive -= (chosen - math.log(sum(math.exp(value) for value in logits))) / 12
    assert math.isclose(float(pseudo_label_loss(v, labels, kept, 0.1)), naive, rel_tol=1e-4)


def test_prototypes_are_merged_along_the_graph_and_every_one_belongs_to_one_cluster() -> None:
    images, groups = squares(120)
    model = quick().fit(images)
    membership = model.network_.membership
    assert membership.shape == (15, 3) and (membership.sum(1) == 1).all() and (membership.sum(0) >= 1).all()
    r = model.network_.nearness(torch.from_numpy(model.transform(images)), model.temperature)
    near = r.argmax(1)
    for prototype in near.unique().tolist():
        assert len(set(groups[(near == prototype).numpy()])) == 1, "over-clustering is pure"
    assert np.allclose(model.predict_proba(images), (r @ membership).numpy(), atol=1e-6)


def test_a_prototype_that_no_image_is_nearest_to_goes_where_the_nearest_used_one_goes() -> None:
    images, _ = squares(60)
    model = quick().fit(images)
    z, network = torch.from_numpy(model.transform(images)), model.network_
    used = int(network.nearness(z, model.temperature).argmax(1)[-1])
    # Half as long as that prototype: next to it in direction, and never the nearest of any image.
    network.prototypes = torch.cat([network.prototypes, network.prototypes[used][None] / 2])
    membership = model._merge(z, 3)
    assert membership[-1].tolist() == membership[used].tolist() and (membership.sum(1) == 1).all()


def test_pseudo_labels_are_drawn_equally_often_and_those_that_wait_come_first() -> None:
    labels = torch.cat([torch.zeros(90), torch.ones(10)]).long()[:, None]
    waiting = torch.zeros(100, dtype=torch.int64)
    waiting[40:90] = 1
    order = uniform_order(labels, waiting, torch.Generator().manual_seed(0))
    assert len(order) == 100
    assert torch.bincount(labels[order, 0]).tolist() == [50, 50]
    assert set(order[order < 90].tolist()) == set(range(40, 90)), "those that have waited"
    assert (torch.bincount(order)[90:] == 5).all(), "a rare one comes several times"


def test_memory_bank_holds_the_projections_of_the_last_epoch() -> None:
    """An image that was drawn twice: the mean direction of its four views; one that was not drawn: as before."""
    images, _ = squares(24)
    model = quick(training=dataclasses.replace(QUICK, warmup_epochs=1, epochs=1)).fit(images)
    before = normalize(torch.randn(24, 8))
    fit = Fit(model.network_, images, model.tensor, QUICK, 0, [])
    fit.kept |= {"sizes": torch.tensor([2, 3]), "prototypes": normalize(torch.randn(5, 8))}
    kept = fit.of_images = {
        "bank": before,
        "seen": torch.zeros(24, 8),
        "waiting": torch.full((24,), 2),
        "labels": torch.zeros(24, 2, dtype=torch.int64),
    }
    projected = torch.zeros(24, 8)
    for part, seed in (([3, 5], 1), ([5, 7], 2)):
        x, index = model.tensor(images[part]), torch.tensor(part)
        with torch.no_grad():
            model._loss(Batch(x, index, torch.Generator().manual_seed(seed)), fit)
            chance = torch.Generator().manual_seed(seed)
            augment(x, dataclasses.replace(AUGMENTATIONS["radiograph"], crop=SMALL_CROP), chance)  # the small crop
            views = model._views(Batch(x, index, chance))
            for place, image in enumerate([*part, *part]):
                projected[image] += model.network_.project(model.network_.encoder(views))[place]
    model._new_pseudo_labels(fit, 0)
    for image in range(24):
        wanted = normalize(projected[image], dim=0) if image in (3, 5, 7) else before[image]
        assert torch.allclose(kept["bank"][image], wanted, atol=1e-4), image
        assert int(kept["waiting"][image]) == (0 if image in (3, 5, 7) else 3)
    assert kept["labels"].shape == (24, 2) and fit.kept["prototypes"].shape == (5, 8) and not kept["seen"].any()


def test_every_head_keeps_its_prototypes_in_use() -> None:
    images, _ = squares(24)
    model = quick().fit(images)
    records = [record for record in model.history_ if record["phase"] == "clustering"]
    assert len(records) == 6 and all(record["clusters_used"] == 15 for record in records)
    assert model.network_.prototypes.shape == (15, 8) and model.network_.membership.shape == (15, 3)


def test_embedding_is_white() -> None:
    images, _ = squares(60)
    z = quick().fit(images).transform(images)
    assert np.allclose(z.mean(0), 0, atol=1e-3)
    covariance = np.cov(z.T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.2
    assert np.trace(covariance) < 1.3 * len(covariance), "shrunk: directions without variance are not blown up"


def stripes(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, 16, 16) of rows, columns or diagonals: what the mean over all places can tell apart."""
    chance = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), sizes)
    row, column = np.mgrid[:16, :16]
    waves = np.stack([np.sin(row), np.sin(column), np.sin(0.7 * (row + column))])
    images = 100 + 60 * waves[groups] + chance.normal(0, 15, (len(groups), 16, 16))
    return np.clip(images, 0, 255).astype(np.uint8)[:, None], groups


def test_finds_planted_groups_also_where_one_is_rare() -> None:
    images, groups = stripes((24, 80, 80))
    labels = quick().fit(images).labels_
    assert len({(int(a), int(b)) for a, b in zip(groups, labels, strict=True)}) == 3


def test_more_clusters_are_pure() -> None:
    images, groups = squares(90)
    model = quick(n_clusters=9).fit(images)
    assert model.n_clusters_ == 9
    table = np.zeros((9, 3))
    np.add.at(table, (model.labels_, groups), 1)
    assert table.max(1).sum() == 90
