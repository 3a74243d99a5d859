"""Occlusion: how much the log odds of a cluster fall where a window of the image is taken out. For comparison.

    Zeiler, Fergus: Visualizing and understanding convolutional networks. ECCV 2014. arXiv:1311.2901.

What is taken out becomes the mean image of the other clusters. Windows overlap by half; a voxel's value is the mean
over the windows that hold it. One pass through the network per window: slow, but other rules can be checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch

from medstrata.errors import FitError
from medstrata.evidence.maps.rule import Explainable, Facts, Question


@dataclass(frozen=True)
class Occlusion:
    """``window``: side of the window in voxels, at least 2."""

    window: int = 8
    needs_cohort = True
    name = "Occlusion by the mean image of the other clusters"

    def __post_init__(self) -> None:
        if self.window < 2:
            raise FitError(f"window is {self.window} voxels, but must be at least 2.")

    @torch.inference_mode()
    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> signed maps (n, *grid); no figures."""
        reference, grid = question.reference(), x.shape[2:]
        whole = question.log_odds(model.soft_assignment(x))
        fallen, times = x.new_zeros(len(x), *grid), x.new_zeros(grid)
        for corner in product(*(range(0, max(1, size - self.window // 2), self.window // 2) for size in grid)):
            inside = torch.zeros(grid, dtype=torch.bool, device=x.device)
            inside[tuple(slice(start, start + self.window) for start in corner)] = True
            lost = whole - question.log_odds(model.soft_assignment(torch.where(inside, reference, x)))
            fallen += lost.reshape(-1, *[1] * len(grid)) * inside
            times += inside
        return fallen / times, {}
