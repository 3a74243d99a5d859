"""Radiological images of 64 x 64 pixels that the benchmarks train on and change: MedNIST from ``$MEDSTRATA_DATA``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch


def data_file() -> Path:
    """Where MedNIST stands (docs/data.md)."""
    return Path(os.environ.get("MEDSTRATA_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mednist.npz"


def scaled_images(count: int) -> torch.Tensor:
    """Draw float32 images (count, 1, 64, 64), the same at each call, and bring them to mean 0 and deviation 1.

    Raises
    ------
    FileNotFoundError : MedNIST is not there
    """
    file = data_file()
    if not file.exists():
        raise FileNotFoundError(
            f"{file.name} is missing. Set MEDSTRATA_DATA to the folder that docs/data.md describes."
        )
    with np.load(file) as stored:
        chosen = np.random.default_rng(0).permutation(len(stored["images"]))[:count]
        images = torch.from_numpy(stored["images"][chosen].astype(np.float32))[:, None]
    return (images - images.mean()) / images.std()
