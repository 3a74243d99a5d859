"""Maps that know nothing of the cluster, as controls: a rule that is not better than these explains nothing.

Each is a rule like the others (``maps.rule.Rule``), so that it passes the same door and the same measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.ndimage import gaussian_gradient_magnitude

from medstrata.evidence.maps.clam import weighted_map
from medstrata.evidence.maps.resampling import smooth
from medstrata.evidence.maps.rule import Explainable, Facts, Question
from medstrata.learning.comm import generator

STREAM = 43  # names the stream of random numbers


@dataclass(frozen=True)
class EqualWeights:
    """The feature maps added up as they are: CLAM without its weights. The same for every cluster."""

    needs_cohort = False
    name = "equal weights"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> maps (n, *grid), >= 0."""
        features = model.feature_maps(x)
        return weighted_map(features, features.new_ones(features.shape[:2]), x.shape[2:]), {}


@dataclass(frozen=True)
class RandomWeights:
    """The feature maps added up with weights drawn from 0..1, the same for all images."""

    seed: int = 0
    needs_cohort = False
    name = "random weights"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> maps (n, *grid), >= 0."""
        features = model.feature_maps(x)
        weights = torch.rand(features.shape[1], generator=generator(self.seed, STREAM)).to(features)
        return weighted_map(features, weights.expand(len(x), -1), x.shape[2:]), {}


@dataclass(frozen=True)
class Novelty:
    """|image - mean image| over all clusters, ``smoothing`` as in ``IntegratedGradients``: no network."""

    smoothing: float = 0.0
    needs_cohort = True

    @property
    def name(self) -> str:
        """What stands in tables."""
        return "difference from the mean image" + (", smoothed" if self.smoothing else "")

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> maps (n, *grid), >= 0."""
        cohort = question.known()
        mean = cohort.of(torch.ones(1, len(cohort.sizes), device=x.device))
        return smooth((x - mean).sum(1), self.smoothing).abs(), {}


@dataclass(frozen=True)
class ClusterDifference:
    """|mean of the cluster - mean of the others|, smoothed: the same for every image of a cluster, no network."""

    smoothing: float = 2.0
    needs_cohort = True
    name = "difference of the cluster's mean image from the others"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> maps (n, *grid), >= 0."""
        cohort = question.known()
        own = torch.nn.functional.one_hot(question.cluster, len(cohort.sizes)).to(x)
        return smooth((cohort.of(own) - question.reference()).sum(1), self.smoothing).abs(), {}


@dataclass(frozen=True)
class Centre:
    """A Gaussian in the middle of the grid whose standard deviation is a quarter of each side."""

    needs_cohort = False
    name = "centre"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> maps (n, *grid), >= 0."""
        grid = x.shape[2:]
        axes = [(torch.arange(size, device=x.device) - (size - 1) / 2) / (size / 4) for size in grid]
        distance = sum(part.square() for part in torch.meshgrid(*axes, indexing="ij"))
        return torch.exp(-torch.as_tensor(distance) / 2).expand(len(x), *grid).clone(), {}


@dataclass(frozen=True)
class Edges:
    """The size of the image's gradient at a scale of one voxel: no network."""

    needs_cohort = False
    name = "edges"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> maps (n, *grid), >= 0."""
        found = [gaussian_gradient_magnitude(one.double().cpu().numpy(), 1.0) for one in x.sum(1)]
        return torch.stack([torch.from_numpy(one) for one in found]).to(x), {}


@dataclass(frozen=True)
class Noise:
    """White noise: a random order of the voxels."""

    seed: int = 0
    needs_cohort = False
    name = "random order"

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> maps (n, *grid), >= 0."""
        return torch.rand((len(x), *x.shape[2:]), generator=generator(self.seed, STREAM, 1)).to(x), {}


CONTROLS = (EqualWeights(), RandomWeights(), Novelty(), Novelty(2.0), ClusterDifference(), Centre(), Edges())
