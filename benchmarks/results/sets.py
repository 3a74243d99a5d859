"""The data sets of the table: images, labels for scoring, and which images must not be parted by a split.

Real sets are read from ``$MEDSTRATA_DATA`` (docs/data.md says what they are and where to get them). Images of more than
64 pixels a side are averaged down by a whole factor, for every method alike: on two cores the table would not end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.results.archive import size_features
from benchmarks.results.sharpness import matched
from benchmarks.results.whole_run import archived
from medstrata.pipeline.runner import run_stage
from medstrata.run import read_json
from medstrata.simulation.study import Study, simulate_arrays

DEVELOPED_ON = (
    "mnist-60k",
    "mnist-10k",
    "fashion",
    "mednist",
    "phantoms-3d",
    "archive",
)  # phantoms: method for volumes
DRAWN_FROM = ("mednist-imbalanced", "archive-imbalanced")  # of the images of sets that were developed on
LARGEST_SIDE = 64
RATIOS = 2.0 ** np.arange(6)  # 1:2:4:8:16:32
PHANTOMS = Study(patients=90, shape=(32, 32, 32), spacing=(290 / 32, 340 / 32, 340 / 32), noise=400)
BLOCKS = 20  # of neighbouring files, where neighbours may be slices of one scan


@dataclass(frozen=True)
class Images:
    """``images`` (N, ...) as methods take them, ``labels`` (N,), ``groups`` (N,): images of one group stay together.

    ``augmentation``: what the plan chooses for the modality.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    augmentation: str
    sizes: NDArray[Any] | None = None  # (N, 4) rows, columns, bits, padding of the files, where they tell something

    @property
    def n_classes(self) -> int:
        """Number of different labels."""
        return len(np.unique(self.labels))

    def take(self, chosen: NDArray[Any]) -> Images:
        """Return a subset, by numbers or by a mask (N,)."""
        return replace(self, images=self.images[chosen], labels=self.labels[chosen], groups=self.groups[chosen])

    def split(self, seed: int, share: float = 0.7) -> tuple[Images, Images]:
        """Return a training part of about ``share`` of the groups and the rest."""
        names = np.unique(self.groups)
        order = np.random.default_rng(seed).permutation(len(names))
        training = np.isin(self.groups, names[order[: round(share * len(names))]])
        return self.take(training), self.take(~training)


def data_folder() -> Path:
    """Return ``$MEDSTRATA_DATA``, by default ``../shared/data`` beside the checkout."""
    return Path(os.environ.get("MEDSTRATA_DATA", Path(__file__).parents[3] / "shared" / "data"))


def load(name: str, seed: int) -> Images:
    """Load the set ``name`` of ``SETS``; ``seed`` draws what is drawn (imbalanced shares, phantoms)."""
    return SETS[name](seed)


def _read(file: str, group: str | None, augmentation: str, most: int | None = None) -> Images:
    with np.load(data_folder() / f"{file}.npz") as stored:
        images, labels = stored["images"][:most], stored["labels"][:most].astype(np.int64)
        groups = np.arange(len(labels)) if group is None else _groups(stored[group][:most], labels, group)
    if images.ndim == 4 and images.shape[-1] == 3:
        images = np.moveaxis(images, -1, 1)
    images = images[:, None] if images.ndim in (3, 4) and images.shape[1] != 3 else images
    return Images(_smaller(images), labels, groups, augmentation)


def _groups(values: NDArray[Any], labels: NDArray[np.int64], name: str) -> NDArray[np.int64]:
    """Number the groups; file numbers, which count within a class, become blocks of neighbours."""
    if name == "file_index":
        ranks = np.empty(len(values), np.int64)
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            ranks[own[np.argsort(values[own], kind="stable")]] = np.arange(len(own)) * BLOCKS // len(own)
        return labels * BLOCKS + ranks
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _smaller(images: NDArray[Any]) -> NDArray[Any]:
    """Average images (N, C, ...) over squares or cubes until no side is longer than 64."""
    factor = -(-max(images.shape[2:]) // LARGEST_SIDE)
    if factor == 1:
        return images
    sides = images.shape[2:]
    blocks = [size for side in sides for size in (side // factor, factor)]
    parts = images.reshape(*images.shape[:2], *blocks)
    axes = tuple(range(3, 3 + 2 * len(sides), 2))
    averaged: NDArray[Any] = parts.mean(axis=axes).round().astype(images.dtype)
    return averaged


def _imbalanced(seed: int) -> Images:
    """MedNIST at 1:2:4:8:16:32, the shares rotated over the classes by the seed."""
    full = _read("mednist", "file_index", "mixed")
    counts = np.roll(RATIOS / RATIOS.max() * np.bincount(full.labels).min(), seed).astype(int)
    chance = np.random.default_rng(seed)
    chosen = [chance.permutation(np.flatnonzero(full.labels == label))[:count] for label, count in enumerate(counts)]
    return full.take(np.sort(np.concatenate(chosen)))


def _blurred() -> Images:
    """PneumoniaMNIST after all images were blurred to one sharpness."""
    found = _read("pneumoniamnist_trainval", None, "radiograph")
    return replace(found, images=matched(found.images))


def _archive(seed: int, balanced: bool) -> Images:
    """The 2-D medical sets as DICOM files, as ``medstrata run --goal categories`` scans, plans and decodes them."""
    with tempfile.TemporaryDirectory() as temporary:
        written = archived(Path(temporary), data_folder(), balanced, seed)
        for stage in ("scan", "plan", "decode"):
            run_stage(stage, written.job(), input_path=written.source if stage == "scan" else None)
        names = written.files(pq.read_table(written.out / "images.parquet")["image_id"].to_pylist())
        pixels, plan = np.load(written.out / "pixels.npy"), read_json(written.out / "plan.json")
        sizes_of = dict(zip(sorted(written.kinds), size_features(written.source), strict=True))
    kinds = sorted(set(written.kinds.values()))
    numbers = np.array([kinds.index(written.kinds[name]) for name in names])
    sizes = np.array([sizes_of[name] for name in names])
    groups = _groups(np.array([written.numbers[name] for name in names]), numbers, "file_index")
    return Images(pixels, numbers, groups, plan["augmentation"], sizes)


def _phantoms(seed: int) -> Images:
    volumes, labels, _ = simulate_arrays(replace(PHANTOMS, seed=seed))
    images = np.clip(volumes, -1000, 400).astype(np.int16)
    return Images(images, labels, np.arange(len(labels)), "ct")


SETS: dict[str, Callable[[int], Images]] = {
    "mnist-60k": lambda seed: _read("mnist_train60k", None, "digits"),
    "mnist-10k": lambda seed: _read("mnist_train60k", None, "digits", 10_000),
    "fashion": lambda seed: _read("fashionmnist_test10k", None, "objects"),
    "mednist": lambda seed: _read("mednist", "file_index", "mixed"),
    "mednist-imbalanced": _imbalanced,
    "pneumonia": lambda seed: _read("pneumoniamnist_trainval", None, "radiograph"),
    "pneumonia-blurred": lambda seed: _blurred(),
    "ham10000": lambda seed: _read("ham10000_64", "lesion", "skin"),
    "iq-oth": lambda seed: _read("iqoth_lungct", "file_index", "ct"),
    "acdc": lambda seed: _read("acdc_cine_sax", "patient", "mr"),
    "busi": lambda seed: _read("busi_breast_us", "dup_group", "ultrasound"),
    "adrenal-3d": lambda seed: _read("adrenalmnist3d_32", None, "ct"),
    "msd-patches": lambda seed: _read("msd_lung_patches48", "patient", "ct"),
    "phantoms-3d": _phantoms,
    "archive": lambda seed: _archive(seed, balanced=True),
    "archive-imbalanced": lambda seed: _archive(seed, balanced=False),
}
