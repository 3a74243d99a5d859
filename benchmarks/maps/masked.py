"""Do maps of real images fall on the organ or the tumour? Heart on cardiac MR, tumour on patches of lung CT.

python -m benchmarks.maps.masked [--seeds 0 1 2 3 4]        (needs MEDSTRATA_DATA)

Nobody says that a cluster must be about the heart or the tumour: what a map marks is the model's reason, and the masks
tell how often that lies there. Masks are read after the fit.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.maps.planted import DATA, SETTINGS, Planted
from benchmarks.maps.scores import RULES, Scores, score_all
from medstrata.evidence.maps.controls import CONTROLS
from medstrata.evidence.maps.rule import measure_cohort
from medstrata.methods.settings import make_method

EXPLAINED = 60
COLUMNS = {"average_precision": "average precision", "pointing": "peak inside", "energy": "share of strength"}


@dataclass(frozen=True)
class MaskedSet:
    """A set with masks: its file, how many clusters, how images are changed at random while fitting."""

    file: str
    clusters: int
    batch_size: int
    augmentation: str


SETS = {
    "ACDC, heart": MaskedSet("acdc_cine_sax.npz", 4, 64, "mr"),
    "MSD lung patches, tumour": MaskedSet("msd_lung_patches48.npz", 2, 8, "ct"),
}


def scores_of(chosen: MaskedSet, method: str, seed: int) -> Scores:
    """Fit one method and score all rules on images that have something in their mask."""
    with np.load(DATA / chosen.file) as file:
        images, masks = file["images"], file["masks"] > 0
    images = (images if images.dtype == np.uint8 else images.astype(np.float32))[:, None]
    settings = {"n_clusters": chosen.clusters, "random_state": seed, **SETTINGS.get(method, {})}
    model = make_method(method, settings)
    training = replace(model.training, batch_size=chosen.batch_size)
    if training.augmentation != "none":
        training = replace(training, augmentation=chosen.augmentation)
    model.set_params(training=training).fit(images)
    some = np.random.default_rng(seed).permutation(np.flatnonzero(masks.any((1, 2))))[:EXPLAINED]
    order = model.predict_proba(images[some]).argsort(1)
    nothing = np.zeros_like(masks[some])
    cohort = measure_cohort(model, images)
    study = Planted(model, images[some], masks[some], nothing, cohort, order[:, -1], order[:, -2], {})
    found = score_all(study, few=True, controls=CONTROLS)
    return {name: measures for name, measures in found.items() if not name.startswith("oracle")}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.maps.masked")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=["dcec", "contrastive"])
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    for name, chosen in SETS.items():
        for method in given.methods:
            runs = [scores_of(chosen, method, seed) for seed in given.seeds]
            chance = np.mean([run[next(iter(RULES))]["chance"] for run in runs])
            print(f"\n{name}, {method}, {len(runs)} seeds, chance {chance:.3f}\n")
            print(f"| | {' | '.join(COLUMNS.values())} |\n|---|{'---|' * len(COLUMNS)}")
            for row in runs[0]:
                cells = [[run[row][column] for run in runs] for column in COLUMNS]
                print(f"| {row} | {' | '.join(f'{np.mean(v):.2f} ± {np.std(v):.2f}' for v in cells)} |", flush=True)


if __name__ == "__main__":
    main()
