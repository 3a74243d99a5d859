"""Maps by integrated gradients from the mean image of the other clusters: what in an image sets it apart from them.

    Sundararajan, Taly, Yan: Axiomatic attribution for deep networks. ICML 2017. arXiv:1703.01365.

Algorithm
---------
For an image x of cluster c, with f = the log odds of c against the other clusters (``maps.rule.Question``):

1. The reference r is the mean image of all images of the other clusters.
2. Each voxel v gets the share of f(x) - f(r) that is due to its difference from the reference:
       A_v = sum_channels (x_v - r_v) integral_0^1 df / dx_v (r + a (x - r)) da                                    (1)
   The integral is taken at the ``nodes`` of Gauss and Legendre.
3. The map is A, smoothed by a Gaussian, since single voxels are noise. Above zero a voxel speaks for c, below against
   it. Completeness: the sum over the map is f(x) - f(r) up to the error of the integral; ``completeness`` is their
   ratio.

Why it is the default: a map of the activations, or of how an image differs from the mean image, is nearly the same for
every cluster and lights up on whatever is bright. This one answers why this cluster and not the others, at the
resolution of the image, in ``nodes`` passes; docs/maps.md has the trial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from medstrata.errors import FitError
from medstrata.evidence.maps.resampling import smooth
from medstrata.evidence.maps.rule import Explainable, Facts, Question


@dataclass(frozen=True)
class IntegratedGradients:
    """``nodes``: passes through the network; ``smoothing``: standard deviation of the Gaussian in voxels, 0: none."""

    nodes: int = 4
    smoothing: float = 2.0
    needs_cohort = True
    name = "Integrated gradients of the cluster's log odds, from the mean image of the other clusters"

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.smoothing < 0:
            raise FitError("Integrated gradients need nodes >= 1 and smoothing >= 0 voxels.")

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> signed maps (n, *grid); ``completeness`` (n,)."""
        reference = question.reference()
        difference = x - reference
        attribution = torch.zeros_like(x)
        places, weights = np.polynomial.legendre.leggauss(self.nodes)
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            at = (reference + float(place) * difference).requires_grad_(True)
            (slope,) = torch.autograd.grad(question.log_odds(model.differentiable_assignment(at)).sum(), at)
            attribution += float(weight) * slope
        maps = (attribution * difference).sum(1)
        gained = question.log_odds(model.soft_assignment(x)) - question.log_odds(model.soft_assignment(reference))
        found = maps.flatten(1).sum(1)
        return smooth(maps, self.smoothing), {
            "completeness": torch.where(gained.abs() > 1e-6, found / gained, torch.nan)
        }
