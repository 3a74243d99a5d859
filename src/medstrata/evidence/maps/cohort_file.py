"""The mean of each cluster as a file, so that new images are compared with what the model was fitted on."""

from __future__ import annotations

from pathlib import Path

import torch

from medstrata.evidence.maps.rule import Cohort
from medstrata.learning.checkpoints import load_state, save_state

COHORT = "cohort.safetensors"
"""In ``OUT/maps``."""

COPIED = "fit_cohort.safetensors"
"""In a folder of new images: the cohort of the run whose model sorts them."""


def save_cohort(path: Path, cohort: Cohort) -> None:
    """Write a cohort, atomically."""
    tensors = {"means": cohort.means, "sizes": cohort.sizes}
    save_state(path, tensors | ({} if cohort.features is None else {"features": cohort.features}), {})


def read_cohort(path: Path, device: torch.device) -> Cohort | None:
    """Return the cohort in a file, None where there is no such file.

    Raises
    ------
    RunFolderError : the file is damaged
    """
    if not path.exists():
        return None
    tensors = {name: tensor.to(device) for name, tensor in load_state(path)[0].items()}
    return Cohort(tensors["means"], tensors.get("features"), tensors["sizes"])
