"""Which images belong to one patient: splits, resamples and tests take patients as their unit, never images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.evidence.association.patients import unit_of


def patients_of(out: Path, image_ids: Sequence[str]) -> NDArray[np.str_]:
    """Return the patients' pseudonyms (M,) of images, an image of an unknown patient standing for itself."""
    if not (out / "catalog.parquet").exists():
        return np.array(image_ids, dtype=np.str_)
    table = pq.read_table(out / "catalog.parquet", columns=["image_id", "patient"])
    unit = unit_of(table["image_id"].to_pylist(), table["patient"].to_pylist())
    return np.array([unit.get(image_id, image_id) for image_id in image_ids], dtype=np.str_)
