"""Score every rule and every control on one planted study."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.maps.planted import Planted
from medstrata.evidence.localisation import localised
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.captum_rule import CaptumLayerGradients
from medstrata.evidence.maps.check import Checked, measured
from medstrata.evidence.maps.clam import Clam
from medstrata.evidence.maps.controls import CONTROLS, EqualWeights, Novelty
from medstrata.evidence.maps.correlation import pearson
from medstrata.evidence.maps.feature_gradients import FeatureGradients
from medstrata.evidence.maps.grad_cam import GradCam
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.occlusion import Occlusion
from medstrata.evidence.maps.resampling import smooth
from medstrata.evidence.maps.rule import Explainable, Facts, Question, Rule


@dataclass(frozen=True)
class Oracle:
    """Knows the truth: the smoothed |image - mean image| where any of the images has a lesion, nothing elsewhere.

    Not a rule: what the noise leaves to be seen in one image by someone who knows where to look, not what for.
    """

    where: NDArray[np.bool_]
    needs_cohort = True
    name = "oracle: knows where lesions may lie"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> maps (n, *grid), >= 0."""
        cohort = question.known()
        mean = cohort.of(torch.ones(1, len(cohort.sizes), device=x.device))
        found = smooth((x - mean).sum(1), 1.5).abs()
        return found * torch.from_numpy(self.where).to(found), {}


RULES: dict[str, Rule] = {
    "IntegratedGradients (default)": IntegratedGradients(),
    "IntegratedGradients, not smoothed": IntegratedGradients(smoothing=0),
    "FeatureGradients": FeatureGradients(),
    "FeatureGradients, channel mean": FeatureGradients("channel"),
    "captum, layer IntegratedGradients": CaptumLayerGradients(),
    "Grad-CAM": GradCam(),
    "LayerCAM": GradCam(by_place=True),
    "Occlusion": Occlusion(),
    "Clam": Clam(),
    "Clam, 11 channels": Clam(max_channels=11),
}
FEW = ("IntegratedGradients (default)", "FeatureGradients", "Grad-CAM", "Clam")  # along curves
FEW_CONTROLS: tuple[Rule, ...] = (EqualWeights(), Novelty(), Novelty(2.0))
Scores = dict[str, dict[str, float]]


def score_all(study: Planted, few: bool, controls: Sequence[Rule] | None = None) -> Scores:
    """Return the mean of each measure over the explained images, by rule, control and oracle.

    ``few``: only the rules and, unless ``controls`` are named, the controls that stand along curves.
    """
    found = {name: _scores(study, rule, True) for name, rule in RULES.items() if not few or name in FEW}
    controls = controls or (FEW_CONTROLS if few else CONTROLS)
    found |= {f"control: {rule.name}": _scores(study, rule, False) for rule in controls}
    oracle = Oracle(np.asarray(study.lesions.any(0)))
    return found | {oracle.name: _scores(study, oracle, False)}


def _scores(study: Planted, rule: Rule, own: bool) -> dict[str, float]:
    started = time.process_time()
    found = cluster_activation_map(study.model, study.images, rule, study.clusters, cohort=study.cohort)
    seconds = time.process_time() - started
    rows = [
        localised(one, lesion, distractor)
        for one, lesion, distractor in zip(found.maps, study.lesions, study.distractors, strict=True)
    ]
    scores = {key: _mean([row.get(key, np.nan) for row in rows]) for key in {key for row in rows for key in row}}
    scores["ms"] = 1e3 * seconds / len(rows)
    sane = own and isinstance(rule, IntegratedGradients | Clam)
    more = measured(Checked(study.model, study.images, study.clusters, study.cohort), rule, sane)
    if own and not sane:
        other = cluster_activation_map(study.model, study.images, rule, study.runners_up, cohort=study.cohort)
        pair = (torch.from_numpy(maps.clip(0)) for maps in (found.maps, other.maps))
        more["own_runner_up"] = pearson(*pair).numpy()
    scores |= {key: _mean(values) for key, values in more.items()}
    return {key: value for key, value in scores.items() if np.isfinite(value)}


def _mean(values: Any) -> float:
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")
