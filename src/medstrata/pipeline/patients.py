"""Which images belong to one patient: splits, resamples and tests take patients as their unit, never images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray


def known_patients(out: Path, image_ids: Sequence[str]) -> list[str | None]:
    """Return the pseudonym of each image's patient, None where the headers tell none."""
    if not (out / "catalog.parquet").exists():
        return [None] * len(image_ids)
    table = pq.read_table(out / "catalog.parquet", columns=["image_id", "patient"])
    known = dict(zip(table["image_id"].to_pylist(), table["patient"].to_pylist(), strict=True))
    return [known.get(image_id) or None for image_id in image_ids]


def pseudonyms_of(out: Path, image_ids: Sequence[str]) -> list[str]:
    """Return the patients' pseudonyms (M,) of images, an image of an unknown patient standing for itself."""
    known = known_patients(out, image_ids)
    return [patient or image_id for patient, image_id in zip(known, image_ids, strict=True)]


def patients_of(out: Path, image_ids: Sequence[str]) -> NDArray[np.str_]:
    """Return the patients (M,) of images, an image of an unknown patient standing for itself, named by number."""
    return by_appearance(pseudonyms_of(out, image_ids))


def by_appearance(names: Sequence[str]) -> NDArray[np.str_]:
    """Return numbers (M,) in place of names, in the order in which each comes first.

    Pseudonyms are keyed by the salt of the run folder. What is drawn from sorted names would depend on it, and two runs
    of the same images with the same seed would differ.
    """
    numbers: dict[str, int] = {}
    return np.array([f"{numbers.setdefault(name, len(numbers)):09d}" for name in names], dtype=np.str_)
