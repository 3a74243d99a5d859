"""Sets with a known number of groups: phantoms, Gaussian blobs, and classes drawn from real sets."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.maps.inserted import Patches, Setting, cut
from benchmarks.results.rows import method_for
from benchmarks.results.sets import data_folder, load
from medstrata.methods.principal import PrincipalComponents
from medstrata.simulation.phantom import Lesion
from medstrata.simulation.study import Group, Study, simulate_arrays

KINDS = (
    Group("ground_glass_lower_lobes", (Lesion("lower lobes", 50, -500, 4, "hazy"),)),
    Group(
        "consolidation_right_upper_lobe", (Lesion("right upper lobe", 40, 30), Lesion("right upper lobe", 10, 30, 5))
    ),
    Group("honeycomb_left_periphery", (Lesion("left periphery", 30, -350, 8, "honeycomb"),)),
    Group("normal", ()),
    Group("ground_glass_upper_lobes", (Lesion("upper lobes", 50, -500, 4, "hazy"),)),
    Group("consolidation_lower_lobes", (Lesion("lower lobes", 40, 30, 4),)),
    Group(
        "upper_lobes_and_left_periphery",
        (Lesion("upper lobes", 40, 30, 2), Lesion("left periphery", 30, -350, 8, "honeycomb")),
    ),
    Group("ground_glass_everywhere", (Lesion("anywhere", 50, -500, 12, "hazy"),)),
)
SHAPE = (16, 24, 24)
SPACING = (290 / 16, 340 / 24, 340 / 24)
POOL = 100  # patients of each kind that a set draws from
GROUP = {"phantoms": (40, 81), "phantoms-few": (20, 46)}  # patients of a group: least, and one above the most
ONE_GROUP = 90  # patients of a set of one group
BLOB_AXES = 20
APART = (5.0, 9.0)  # distance of two blobs' centres in standard deviations
PER_CLASS = 100
SEED = 500  # of the patients, apart from those that the rule was chosen on

Vectors = NDArray[np.floating]


def planted(name: str, groups: int, seed: int, folder: Path) -> Vectors:
    """Return embeddings (N, Z) of set ``name`` with ``groups`` planted groups; ``folder`` keeps what takes long."""
    chance = np.random.default_rng([groups, seed, SEED])
    if name in GROUP:
        return _phantoms(groups, GROUP[name], chance, folder)
    if name == "lung CT":
        return _lung_ct(groups, chance)
    if name == "blobs":
        return _blobs(groups, chance)
    data, how = name.rsplit(" ", 1)
    return _classes(_embedded(data, how, folder), groups, chance)


def _phantoms(groups: int, size: tuple[int, int], chance: np.random.Generator, folder: Path) -> Vectors:
    pool = _pool(folder)
    sizes = chance.integers(*size, size=groups) if groups > 1 else [ONE_GROUP]
    kinds = chance.choice(len(KINDS), groups, replace=False)
    images = np.concatenate(
        [pool[kind][chance.choice(POOL, count, replace=False)] for kind, count in zip(kinds, sizes, strict=True)]
    )
    return PrincipalComponents(1, assignment="kmeans").fit(images).transform(images)


def _lung_ct(groups: int, chance: np.random.Generator) -> Vectors:
    """Patches of real lung CT of one patient with one of six kinds of lesion."""
    patches = _patches()
    kinds = chance.choice(6, groups, replace=False)
    sizes = chance.integers(*GROUP["phantoms"], size=groups) if groups > 1 else [ONE_GROUP]
    of_kind = [np.flatnonzero(patches.groups == kind) for kind in kinds]
    rows = [chance.choice(rows, count, replace=False) for rows, count in zip(of_kind, sizes, strict=True)]
    images = patches.images[np.concatenate(rows)].clip(-1000, 200)
    return PrincipalComponents(1, assignment="kmeans").fit(images).transform(images)


@cache
def _patches() -> Patches:
    return cut(data_folder(), Setting("six kinds", count=6 * POOL), "right", SEED)


def _blobs(groups: int, chance: np.random.Generator) -> Vectors:
    """Round blobs of unequal size and spread; one group is a long Gaussian."""
    if groups == 1:
        return chance.standard_normal((200, BLOB_AXES)) * np.geomspace(3, 0.5, BLOB_AXES)
    places = chance.standard_normal((groups, BLOB_AXES))
    places *= chance.uniform(*APART) / np.sqrt(2) / np.linalg.norm(places, axis=1, keepdims=True)
    sizes = np.maximum(15, (chance.dirichlet(np.full(groups, 3.0)) * 50 * groups).astype(int))
    of = np.repeat(np.arange(groups), sizes)
    spread = chance.uniform(0.7, 1.3, groups)[of, None]
    blobs: Vectors = places[of] + spread * chance.standard_normal((len(of), BLOB_AXES))
    return blobs


def _classes(embedded: dict[str, NDArray[Any]], groups: int, chance: np.random.Generator) -> Vectors:
    """Classes drawn at random; the set without groups is one Gaussian with mean and covariance of one class."""
    labels, z = embedded["labels"], embedded["z"]
    kinds = chance.choice(np.unique(labels), groups, replace=False)
    rows = np.concatenate([chance.choice(np.flatnonzero(labels == kind), PER_CLASS, replace=False) for kind in kinds])
    if groups == 1:
        return chance.multivariate_normal(z[labels == kinds[0]].mean(0), np.cov(z[labels == kinds[0]].T), 2 * PER_CLASS)
    chosen: Vectors = z[rows]
    return chosen


@cache
def _pool(folder: Path) -> NDArray[np.int16]:
    """Phantoms (kinds, patients, 1, D, H, W)."""
    file = folder / "phantoms.npy"
    if not file.exists():
        made = [
            simulate_arrays(Study(POOL, (kind,), SHAPE, SPACING, seed=SEED + number))[0]
            for number, kind in enumerate(KINDS)
        ]
        np.save(file, np.clip(np.stack(made), -1000, 400))
    pool: NDArray[np.int16] = np.load(file)
    return pool


@cache
def _embedded(data: str, how: str, folder: Path) -> dict[str, NDArray[Any]]:
    """One embedding of a whole real set, by the pixels' components or by DeepMCAT, which all draws share."""
    file = folder / f"{how}-{data}.npz"
    if not file.exists():
        images = load(data, 0)
        method = method_for(images, "pca-kmeans" if how == "pca" else how, 0)
        if how != "pca":
            method.set_params(n_clusters="auto")
        np.savez(file, z=method.fit(images.images).transform(images.images), labels=images.labels)
    with np.load(file) as stored:
        return {"z": stored["z"], "labels": stored["labels"]}
