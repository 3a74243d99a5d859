"""One planted study and the clustering of it: simulated chests, or lesions inserted into real lung CT."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.maps import inserted
from medstrata.evidence.maps.rule import Cohort, measure_cohort
from medstrata.evidence.metrics import score
from medstrata.methods.method import ClusteringMethod
from medstrata.methods.settings import make_method
from medstrata.simulation.study import GROUPS, Study, simulate_volumes

Mask = NDArray[np.bool_]
CONTRAST = 350.0  # HU by which the phantoms' lesions differ from lung, about
EXPLAINED = 45  # images
GRID = (32, 32, 32)
SETTINGS = {"dcec": {"clustering_weight": 0.1}}  # the paper's, with which the cells were made; the default is smaller
BATCH = {2: 16, 3: 8}  # as the plan takes for sets as small
DATA = Path(os.environ.get("MEDSTRATA_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


@dataclass(frozen=True)
class Cell:
    """What one cell of the study is about.

    ``data``: "phantoms", "ct-2d", "ct-3d"; ``factor``: what the groups of CT differ in; ``contrast_to_noise``: of the
    phantoms' lesions; ``noise``: SD in HU that is added to CT; ``clusters``: None: as many as groups; ``images``: None:
    90 phantoms, 300 patches, 150 blocks; ``misregistration``: SD of the place in mm, None: .5 of a phantom, 2 of a
    lesion in CT.
    """

    data: str
    factor: str = "location"
    contrast_to_noise: float = 1.0
    distractor: bool = False
    misregistration: float | None = None
    noise: float = 0.0
    images: int | None = None
    clusters: int | None = None
    method: str = "dcec"
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of the cell's file."""
        given = [self.data, self.method]
        given += [self.factor.replace(" ", "-")] if self.data != "phantoms" else [f"cnr{self.contrast_to_noise:g}"]
        given += ["distractor"] if self.distractor else []
        given += [f"moved{self.misregistration:g}"] if self.misregistration is not None else []
        given += [f"noise{self.noise:g}"] if self.noise else []
        given += [f"n{self.images}"] if self.images is not None else []
        given += [f"k{self.clusters}"] if self.clusters is not None else []
        return "-".join([*given, str(self.seed)])


@dataclass(frozen=True)
class Planted:
    """A fitted model and the images that are explained: for CT these are of the other lung.

    ``images`` (n, C, \\*grid), ``lesions``, ``distractors`` (n, \\*grid); ``clusters``, ``runners_up`` (n,).
    """

    model: ClusteringMethod
    images: NDArray[Any]
    lesions: Mask
    distractors: Mask
    cohort: Cohort
    clusters: NDArray[np.int64]
    runners_up: NDArray[np.int64]
    facts: dict[str, float]


def plant(cell: Cell) -> Planted:
    """Simulate, fit, and choose what is explained. Groups and masks are read after the fit."""
    return _phantoms(cell) if cell.data == "phantoms" else _ct(cell)


def _phantoms(cell: Cell) -> Planted:
    spacing = (290 / 32, 340 / 32, 340 / 32)
    moved = {} if cell.misregistration is None else {"misregistration": cell.misregistration}
    noise = CONTRAST / cell.contrast_to_noise
    study = Study(cell.images or 90, GROUPS, GRID, spacing, noise, cell.distractor, seed=cell.seed, **moved)
    volumes, lesions, distractors = simulate_volumes(study)
    volumes = volumes.clip(-1024, 1000)
    model = _fit(cell, volumes, len(study.groups), 3)
    facts = _facts(model, study.labels(), volumes)
    return _planted(model, volumes, volumes, lesions, distractors, facts)


def _ct(cell: Cell) -> Planted:
    dimensions = 2 if cell.data == "ct-2d" else 3
    setting = inserted.Setting(cell.factor, dimensions, cell.images or (300, 150)[dimensions - 2])
    moved = setting.misregistration if cell.misregistration is None else cell.misregistration
    setting = replace(setting, distractor=cell.distractor, misregistration=moved, noise=cell.noise)
    known = inserted.cut(DATA, setting, "right", cell.seed)
    new = inserted.cut(DATA, replace(setting, count=150), "left", cell.seed)
    model = _fit(cell, known.images, len(inserted.FACTORS[cell.factor]), dimensions)
    facts = _facts(model, known.groups, known.images)
    facts["accuracy_new"] = score(new.groups, model.predict(new.images))["accuracy"]
    for side in ("right", "left"):
        facts[f"distinct_places_{side}"] = inserted.distinct_places(DATA, side, dimensions)
    return _planted(model, known.images, new.images, new.lesions, new.distractors, facts)


def _fit(cell: Cell, images: NDArray[Any], groups: int, dimensions: int) -> ClusteringMethod:
    settings = {"n_clusters": cell.clusters or groups, "random_state": cell.seed, **SETTINGS.get(cell.method, {})}
    model = make_method(cell.method, settings)
    training = replace(model.training, batch_size=BATCH[dimensions])
    if training.augmentation != "none":
        training = replace(training, augmentation="ct")
    model.set_params(training=training).fit(images)
    return model


def _facts(model: ClusteringMethod, groups: NDArray[np.int64], images: NDArray[Any]) -> dict[str, float]:
    simple = make_method("pca", {"n_clusters": model.n_clusters_, "assignment": "kmeans"}).fit(images)
    found = score(groups, model.labels_)
    return {
        "accuracy": found["accuracy"],
        "purity": found["purity"],
        "simple": score(groups, simple.labels_)["accuracy"],
    }


def _planted(
    model: ClusteringMethod,
    known: NDArray[Any],
    images: NDArray[Any],
    lesions: Mask,
    distractors: Mask,
    facts: dict[str, float],
) -> Planted:
    some = slice(0, EXPLAINED)
    order = model.predict_proba(images[some]).argsort(1)
    cohort = measure_cohort(model, known)
    facts = {**facts, "lesion_share": float(lesions[some].mean())}
    return Planted(model, images[some], lesions[some], distractors[some], cohort, order[:, -1], order[:, -2], facts)
