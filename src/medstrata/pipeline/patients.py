"""Which images belong to one patient: splits, resamples and tests take patients as their unit, never images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray


def patients_of(out: Path, image_ids: Sequence[str]) -> NDArray[np.str_]:
    """Return the patients' pseudonyms (M,) of images, an image of an unknown patient standing for itself."""
    of: dict[str, str] = {}
    if (out / "catalog.parquet").exists():
        table = pq.read_table(out / "catalog.parquet", columns=["image_id", "patient"])
        of = dict(zip(table["image_id"].to_pylist(), table["patient"].to_pylist(), strict=True))
    return np.array([of.get(image_id) or image_id for image_id in image_ids], dtype=np.str_)
