"""Planted lesions in simulated lung CT: every rule beside controls that use no network or no weights.

python -m benchmarks.maps [--seeds 0 1 2] [--noise 350]

Prints one table without and one with a distractor: a metal object in every patient, at a random place, that means
nothing. Labels and masks are read after the fit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score

from medstrata.evidence.localisation import pointing_hit
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.clam import Clam, weighted_map
from medstrata.evidence.maps.grad_cam import GradCam
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.occlusion import Occlusion
from medstrata.evidence.maps.rule import Cohort, measure_cohort
from medstrata.evidence.metrics import score
from medstrata.methods.dcec import DCEC
from medstrata.simulation.study import Study, simulate_volumes

Maps = NDArray[Any]
EXPLAINED = 45  # of 90 volumes
SMOOTHING = 2.0  # voxels, of the smoothed controls: as much as the default rule has
COLUMNS = ("pointing", "average precision", "share", "peak on distractor", "own / runner-up", "ms a map")


@dataclass(frozen=True)
class Planted:
    """A study and the model fitted on it; ``clusters`` and ``runners_up`` (n,) of the explained volumes."""

    model: DCEC
    volumes: Maps
    lesions: NDArray[np.bool_]
    distractors: NDArray[np.bool_]
    cohort: Cohort
    clusters: NDArray[np.int64]
    runners_up: NDArray[np.int64]
    accuracy: float


def planted(seed: int, noise: float, distractor: bool) -> Planted:
    """Simulate 90 patients on a grid of 32 voxels a side and cluster them."""
    spacing = (290 / 32, 340 / 32, 340 / 32)
    study = Study(patients=90, shape=(32, 32, 32), spacing=spacing, noise=noise, distractor=distractor, seed=seed)
    volumes, lesions, distractors = simulate_volumes(study)
    volumes = volumes.clip(-1024, 1000)
    model = DCEC(len(study.groups), random_state=seed, training=replace(DCEC().training, batch_size=8)).fit(volumes)
    q = model.predict_proba(volumes)[:EXPLAINED]
    order = q.argsort(1)
    return Planted(
        model,
        volumes,
        lesions[:EXPLAINED],
        distractors[:EXPLAINED],
        measure_cohort(model, volumes),
        order[:, -1],
        order[:, -2],
        score(study.labels(), model.labels_)["accuracy"],
    )


def by_rule(rule: Any) -> Callable[[Planted, NDArray[np.int64]], Maps]:
    """Return a maker of maps by a rule of the package."""
    return lambda study, clusters: (
        cluster_activation_map(study.model, study.volumes[:EXPLAINED], rule, clusters, cohort=study.cohort).maps
    )


def uniform(study: Planted, _: NDArray[np.int64]) -> Maps:
    """The channels of the last layer with equal weights: Clam without its weights."""
    features = study.model.feature_maps(study.model.tensor(study.volumes[:EXPLAINED]))
    return weighted_map(features, torch.ones(features.shape[:2]), study.volumes.shape[2:]).numpy()


def novelty(study: Planted, _: NDArray[np.int64]) -> Maps:
    """|image - mean image|: no network."""
    found: Maps = np.abs(study.volumes[:EXPLAINED, 0] - study.volumes[:, 0].mean(0))
    return found


def smoothed_novelty(study: Planted, _: NDArray[np.int64]) -> Maps:
    """|smoothed (image - mean image)|."""
    difference = study.volumes[:EXPLAINED, 0] - study.volumes[:, 0].mean(0)
    found: Maps = np.abs(gaussian_filter(difference, (0, *[SMOOTHING] * 3)))
    return found


def cluster_difference(study: Planted, clusters: NDArray[np.int64]) -> Maps:
    """|smoothed (mean of the cluster - mean of the others)|: the same for every image of a cluster."""
    labels = study.model.labels_
    found = [
        study.volumes[labels == cluster, 0].mean(0) - study.volumes[labels != cluster, 0].mean(0)
        for cluster in range(study.model.n_clusters_)
    ]
    smooth: Maps = np.abs(gaussian_filter(np.stack(found), (0, *[SMOOTHING] * 3)))
    chosen: Maps = smooth[clusters]
    return chosen


def centre(study: Planted, _: NDArray[np.int64]) -> Maps:
    """A Gaussian in the middle of the grid."""
    grid = study.volumes.shape[2:]
    places = np.indices(grid) - (np.array(grid).reshape(-1, 1, 1, 1) - 1) / 2
    return np.broadcast_to(
        np.exp(-np.square(places / (np.array(grid).reshape(-1, 1, 1, 1) / 4)).sum(0)), (EXPLAINED, *grid)
    )


MAKERS: dict[str, Callable[[Planted, NDArray[np.int64]], Maps]] = {
    "IntegratedGradients (default)": by_rule(IntegratedGradients()),
    "IntegratedGradients, not smoothed": by_rule(IntegratedGradients(smoothing=0)),
    "Grad-CAM": by_rule(GradCam()),
    "LayerCAM": by_rule(GradCam(by_place=True)),
    "Occlusion": by_rule(Occlusion()),
    "Clam": by_rule(Clam()),
    "Clam, 11 channels": by_rule(Clam(max_channels=11)),
    "control: equal weights": uniform,
    "control: abs(image - mean)": novelty,
    "control: the same, smoothed": smoothed_novelty,
    "control: cluster mean - others, smoothed": cluster_difference,
    "control: centre": centre,
}


def measured(study: Planted, make: Callable[[Planted, NDArray[np.int64]], Maps]) -> dict[str, float]:
    """Score the maps of one maker: means over the explained volumes."""
    started = time.process_time()
    maps = np.asarray(make(study, study.clusters))
    seconds = time.process_time() - started
    rival = np.asarray(make(study, study.runners_up)).clip(0)
    positive = maps.clip(0)
    found: dict[str, list[float]] = {name: [] for name in COLUMNS[:-1]}
    for own, other, signed, lesion, distractor in zip(
        positive, rival, maps, study.lesions, study.distractors, strict=True
    ):
        found["pointing"].append(pointing_hit(own, lesion))
        found["average precision"].append(average_precision_score(lesion.ravel(), signed.ravel()))
        on, off = own[lesion].sum(), own[distractor].sum()
        found["share"].append(on / max(on + off, 1e-12))
        found["peak on distractor"].append(bool(distractor.flat[own.argmax()]))
        flat = own.std() == 0 or other.std() == 0
        found["own / runner-up"].append(np.nan if flat else np.corrcoef(own.ravel(), other.ravel())[0, 1])
    return {name: float(np.nanmean(values)) for name, values in found.items()} | {"ms a map": 1e3 * seconds / EXPLAINED}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.maps")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--noise", type=float, default=350.0, help="standard deviation in HU (lesions: 350)")
    given = parser.parse_args(arguments)
    for distractor in (False, True):
        studies = [planted(seed, given.noise, distractor) for seed in given.seeds]
        share = np.mean([study.lesions.mean() for study in studies])
        accuracies = ", ".join(f"{study.accuracy:.2f}" for study in studies)
        print(f"\ndistractor: {'yes' if distractor else 'no'}; chance of pointing {share:.3f}; accuracy {accuracies}\n")
        print(f"| | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
        for name, make in MAKERS.items():
            rows = [measured(study, make) for study in studies]
            cells = [
                f"{np.mean(v):.2f} ± {np.std(v):.2f}" for v in ([row[column] for row in rows] for column in COLUMNS)
            ]
            if not distractor:
                cells[2] = cells[3] = ""
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
