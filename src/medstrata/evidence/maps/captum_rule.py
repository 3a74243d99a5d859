"""Layer integrated gradients of captum, behind the same door: to compare with an implementation that is not ours.

    Kokhlikyan et al.: Captum. arXiv:2009.07896. Installed by: pip install "medstrata[captum]"

The target is the log odds of the cluster (``maps.rule.Question``), the layer is what ``feature_maps`` returns, the
baseline is its mean over the images of the other clusters, as in ``feature_gradients``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch

from medstrata.errors import FitError
from medstrata.evidence.maps.resampling import upsample
from medstrata.evidence.maps.rule import Explainable, Facts, Question


@dataclass(frozen=True)
class CaptumLayerGradients:
    """``steps``: of captum's Gauss-Legendre integral."""

    steps: int = 16
    needs_cohort = True
    name = "Integrated gradients of the feature maps, by captum"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> signed maps (n, *grid); no figures.

        Raises
        ------
        FitError : captum is not installed
        """
        try:
            captum: Any = importlib.import_module("captum.attr")
        except ImportError as error:
            raise FitError('captum is not installed. Run: pip install "medstrata[captum]"') from error
        features = model.feature_maps(x).clone()
        rows = torch.arange(len(x), device=x.device)

        def odds(at: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
            asked = Question(question.cluster[row], question.against[row])
            return asked.log_odds(model.differentiable_assignment(at, of_features=True))

        found = captum.IntegratedGradients(odds).attribute(
            features, question.reference_features(), additional_forward_args=(rows,), n_steps=self.steps
        )
        return upsample(found.sum(1, keepdim=True).float(), x.shape[2:])[:, 0].detach(), {}
