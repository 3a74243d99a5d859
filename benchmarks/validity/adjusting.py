"""Do planted groups come back when a planted scanner is adjusted for? Fills the tables of docs/adjusting.md.

python -m benchmarks.validity.adjusting [planted|mixed|mednist] [--methods pca dcec] [--seeds 5]

``planted``: three groups of images that differ in the place of a blob, each on two scanners; the second has another
gain and offset, blurs and adds noise. ``mixed``: the same, but the groups are ever less equally common on the two.
``mednist``: 1,500 images of MedNIST, half of each class through that second scanner, and through a stronger one. Prints
one row per cell: means over the seeds, of clusters before and after. Labels only score.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medstrata.evidence.association.effect_sizes import cramers_v
from medstrata.evidence.metrics import score
from medstrata.learning.adjustment import InBatches
from medstrata.methods.settings import make_method

GROUPS, COUNT, SIDE = 3, 300, 32
MEDNIST = 1500
EXCESS = (0.0, 0.25, 0.5, 0.75, 1.0)  # 1: one group is on the first scanner only, another on the second only
SCANNER, STRONG = (0.75, 30.0, 1.0), (0.5, 110.0, 1.5)  # gain, offset in grey values, blur in pixels
NOISE = 8  # grey values
HEAD = (
    "| images | method | accuracy before | after | least after | Cramér's V before | after |\n"
    "|---|---|--:|--:|--:|--:|--:|\n"
)

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


Scanner = tuple[float, float, float]
Study = tuple[InBatches, Labels]


def through(images: Images, scanner: Scanner, seed: int) -> Images:
    """Return images (n, H, W) as another scanner shows them: another gain and offset, blurred, with more noise."""
    gain, offset, blur = scanner
    blurred = gaussian_filter(images.astype(np.float64), (0, blur, blur))
    noise = np.random.default_rng(seed).normal(0, NOISE, images.shape)
    shown: Images = (gain * blurred + offset + noise).clip(0, 255).astype(np.uint8)
    return shown


def planted(seed: int, excess: float = 0.0) -> Study:
    """Return images of three groups on two scanners, and the groups.

    ``excess``: by how much group 0 is rarer on the second scanner than half, and group 1 more common.
    """
    generator = np.random.default_rng(seed)
    groups = np.arange(COUNT) % GROUPS
    share = np.array([0.5 - excess / 2, 0.5 + excess / 2, 0.5])[groups]
    scanner = (generator.random(COUNT) < share).astype(np.int64)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images = generator.normal(90, 10, (COUNT, SIDE, SIDE))
    for image, group in zip(images, groups, strict=True):
        row, column = 15.5 + generator.normal(0, 0.7, 2)
        image += 50 * ((rows - row) ** 2 + (columns - column) ** 2 < (11 + generator.normal(0, 0.7)) ** 2)
        angle = 2 * np.pi * group / GROUPS
        row, column = 15.5 + 6 * np.array([np.sin(angle), np.cos(angle)]) + generator.normal(0, 0.7, 2)
        image += 60 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8)
    return _on_two(images.clip(0, 255).astype(np.uint8), scanner, SCANNER, seed), groups


def mednist(seed: int, second: Scanner) -> Study:
    """Return 1,500 images of MedNIST, half of each class through the ``second`` scanner, and the classes."""
    stored = np.load(Path(os.environ["MEDSTRATA_DATA"]) / "mednist.npz")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(stored["labels"]))[:MEDNIST])
    classes = stored["labels"][chosen]
    scanner = np.zeros(MEDNIST, np.int64)
    for number in np.unique(classes).tolist():
        scanner[np.flatnonzero(classes == number)[::2]] = 1
    return _on_two(stored["images"][chosen], scanner, second, seed), classes


def _on_two(images: Images, scanner: Labels, second: Scanner, seed: int) -> InBatches:
    images[scanner == 1] = through(images[scanner == 1], second, seed)
    return InBatches(images, scanner, 2)


def measure(method: str, X: InBatches, groups: Labels, seed: int) -> list[float]:
    """Return accuracy before and after, and Cramér's V of scanners and clusters before and after."""
    settings: dict[str, Any] = {"n_clusters": int(groups.max()) + 1, "random_state": seed, "device": "cpu"}
    settings |= {"clustering_weight": 0.1} if method == "dcec" else {}  # the paper's; the default is smaller
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = make_method(method, settings).fit(X)
    labels = (model.unadjusted_labels_, model.labels_)
    tables = [np.histogram2d(X.numbers, of, bins=(2, int(of.max()) + 1))[0] for of in labels]
    return [*(score(groups, of)["accuracy"] for of in labels), *(cramers_v(table) for table in tables)]


CELLS: dict[str, dict[str, Callable[[int], Study]]] = {
    "planted": {"planted": planted},
    "mixed": {f"excess {excess:g}": partial(planted, excess=excess) for excess in EXCESS},
    "mednist": {"MedNIST": partial(mednist, second=SCANNER), "MedNIST, strong": partial(mednist, second=STRONG)},
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", choices=CELLS, nargs="?", default="planted")
    parser.add_argument("--methods", nargs="+", default=["pca", "dcec"])
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args(arguments)
    sys.stdout.write(HEAD)
    for name, study in CELLS[asked.images].items():
        for method in asked.methods:
            rows = [measure(method, *study(seed), seed) for seed in range(asked.seeds)]
            before, after, *effects = np.mean(rows, axis=0)
            numbers = [before, after, min(row[1] for row in rows), *effects]
            sys.stdout.write(f"| {name} | {method} | " + " | ".join(f"{one:.2f}" for one in numbers) + " |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
