"""Grad-CAM and LayerCAM on the log odds of a cluster: for comparison.

    Selvaraju et al.: Grad-CAM. ICCV 2017. arXiv:1610.02391.
    Jiang et al.: LayerCAM. IEEE Trans. Image Processing 30, 2021.

Algorithm
---------
A_k is channel k of the encoder's last feature maps, f the log odds of the cluster (``maps.rule.Question``).

Grad-CAM:  L = ReLU(sum_k a_k A_k),   a_k = mean over the places of df / dA_k                                      (1)
LayerCAM:  L = ReLU(sum_k ReLU(df / dA_k) A_k), place by place                                                     (2)
Both are brought to the grid of the image by linear interpolation.

Deviation: f is the log odds, not the score of a class before a softmax, since a soft assignment has no such score.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from medstrata.evidence.maps.resampling import upsample
from medstrata.evidence.maps.rule import Explainable, Facts, Question


@dataclass(frozen=True)
class GradCam:
    """Equation (1), or with ``by_place`` LayerCAM, equation (2)."""

    by_place: bool = False
    needs_cohort = False

    @property
    def name(self) -> str:
        """What stands in files and figures."""
        return "LayerCAM of the log odds" if self.by_place else "Grad-CAM of the log odds"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> maps (n, *grid), >= 0; no figures."""
        features = model.feature_maps(x).clone().requires_grad_(True)
        q = model.differentiable_assignment(features, of_features=True)
        (slope,) = torch.autograd.grad(question.log_odds(q).sum(), features)
        places = tuple(range(2, features.ndim))
        weights = slope.relu() if self.by_place else slope.mean(places, keepdim=True)
        small = (weights * features.detach()).sum(1, keepdim=True).relu()
        return upsample(small, x.shape[2:])[:, 0], {}
