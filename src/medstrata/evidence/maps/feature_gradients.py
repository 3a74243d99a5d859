"""Integrated gradients in the space of the feature maps: which places of the last feature maps speak for a cluster.

    After Sundararajan, Taly, Yan. ICML 2017. arXiv:1703.01365.

Algorithm
---------
With F the feature maps (channels k, places v) of an image, f the log odds of its cluster (``maps.rule.Question``) as a
function of F, and R the reference:

       L_v = sum_k (F_kv - R_kv) integral_0^1 df / dF_kv (R + a (F - R)) da                                          (1)

brought to the grid of the image by linear interpolation. ``completeness``: the sum over the places of the small grid is
f(F) - f(R) up to the error of the integral, which is taken at the nodes of Gauss and Legendre.

R is the mean of the feature maps over the images of the other clusters (``reference="cohort"``), or of each channel its
mean over these images and all places (``"channel"``), for images that are not registered to each other.

Only the layers after the feature maps are run, so that it is quick; it is as coarse as the feature maps are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from medstrata.errors import FitError
from medstrata.evidence.maps.resampling import upsample
from medstrata.evidence.maps.rule import Explainable, Facts, Question


@dataclass(frozen=True)
class FeatureGradients:
    """``reference``: "cohort" or "channel" (see the module); ``nodes``: passes through the last layers."""

    reference: Literal["cohort", "channel"] = "cohort"
    nodes: int = 16
    needs_cohort = True

    def __post_init__(self) -> None:
        if self.reference not in ("cohort", "channel") or self.nodes < 1:
            raise FitError('Feature gradients need reference "cohort" or "channel", and nodes >= 1.')

    @property
    def name(self) -> str:
        """What stands in files and figures."""
        return f"Integrated gradients of the feature maps, from the {self.reference} mean"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> signed maps (n, *grid); ``completeness`` (n,)."""
        features, reference = model.feature_maps(x), question.reference_features()
        if self.reference == "channel":
            reference = reference.flatten(2).mean(2).reshape(*features.shape[:2], *[1] * (features.ndim - 2))
            reference = reference.expand_as(features)
        difference = features - reference
        slopes = torch.zeros_like(features)
        places, weights = np.polynomial.legendre.leggauss(self.nodes)
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            at = (reference + float(place) * difference).clone().requires_grad_(True)
            odds = question.log_odds(model.differentiable_assignment(at, of_features=True))
            slopes += float(weight) * torch.autograd.grad(odds.sum(), at)[0]
        small = (slopes * difference).sum(1)
        with torch.no_grad():
            ends = [
                question.log_odds(model.differentiable_assignment(end, of_features=True))
                for end in (features, reference)
            ]
        gained, found = ends[0] - ends[1], small.flatten(1).sum(1)
        completeness = torch.where(gained.abs() > 1e-6, found / gained, torch.nan)
        return upsample(small[:, None], x.shape[2:])[:, 0], {"completeness": completeness}
