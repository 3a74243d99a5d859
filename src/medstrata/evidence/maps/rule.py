"""What every rule for activation maps is given, and what a model must offer to be explained.

Shapes: n images of C channels on a grid, N images of a cohort, K clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from medstrata.errors import FitError
from medstrata.learning.batches import Images, as_images

SMALLEST = 1e-37  # probability below which float32 has no logarithm that can be trusted
NO_NUMBERS = "The network gives NaN: there is nothing to draw a map of. Fit the model again."
COHORT = 2000  # images that the mean image of each cluster is measured on
AT_ONCE = 64
VOXELS = 1 << 22  # of the images in memory at once, two volumes of 128 a side: gradients keep every layer


def at_once(images: Images, most: int) -> int:
    """How many of ``images`` (N, C, \\*grid) go through the network together, at most ``most``."""
    return max(1, min(most, VOXELS // max(1, int(images[0].size))))


class Explainable(Protocol):
    """What a model must offer: see ``methods.method.ClusteringMethod``."""

    @property
    def background(self) -> float:
        """Value of a voxel that tells nothing, in the network's space."""

    def tensor(self, block: Images, /) -> torch.Tensor:
        """Stored values (n, C, *grid) -> float32 as the network sees them."""

    def feature_maps(self, x: torch.Tensor, /) -> torch.Tensor:
        """(n, C, *grid) -> last feature maps of the encoder (n, F, *small), in evaluation mode."""

    def soft_assignment(self, x: torch.Tensor, /) -> torch.Tensor:
        """(n, C, *grid) -> soft assignment (n, K), in evaluation mode."""

    def differentiable_assignment(self, x: torch.Tensor, of_features: bool = False) -> torch.Tensor:
        """As ``soft_assignment``, with gradients with respect to x; ``of_features``: x is ``feature_maps``."""


@dataclass(frozen=True)
class Cohort:
    """The mean of each cluster: ``means`` (K, C, \\*grid) of its images as the network sees them, ``features``
    (K, F, \\*small) of their feature maps, None where the network gives none; ``sizes`` (K,) how many there are.
    """

    means: torch.Tensor
    features: torch.Tensor | None
    sizes: torch.Tensor

    def of(self, weights: torch.Tensor) -> torch.Tensor:
        """Return mean images (n, C, \\*grid) over the clusters that ``weights`` (n, K), 0 or 1, name.

        Where they hold no image, the mean over all images stands in.
        """
        return self._mean(weights, self.means)

    def features_of(self, weights: torch.Tensor) -> torch.Tensor:
        """As ``of``, of feature maps (n, F, \\*small)."""
        assert self.features is not None, "rules that need feature maps have asked the model for them before"
        return self._mean(weights, self.features)

    def _mean(self, weights: torch.Tensor, of_clusters: torch.Tensor) -> torch.Tensor:
        counts = weights * self.sizes
        counts = torch.where(counts.sum(1, keepdim=True) > 0, counts, self.sizes.expand_as(counts))
        return torch.einsum("nk,k...->n...", counts / counts.sum(1, keepdim=True), of_clusters)


def measure_cohort(
    model: Explainable, images: Any, seed: int = 0, rows: NDArray[np.integer[Any]] | None = None
) -> Cohort:
    """Measure the mean image of each cluster on ``images`` (N, ...), or on 2,000 of them drawn at random.

    ``rows``: of these only.
    """
    array = as_images(images)
    every = np.arange(len(array)) if rows is None else np.asarray(rows)
    rows = np.sort(np.random.default_rng(seed).permutation(every)[:COHORT])
    sums = sizes = torch.zeros(())
    feature_sums: torch.Tensor | None = torch.zeros(())
    step = at_once(array, AT_ONCE)
    for start in range(0, len(rows), step):
        x = model.tensor(array[rows[start : start + step]])
        features, q = _features_and_assignment(model, x)
        if not torch.isfinite(q).all():
            raise FitError(NO_NUMBERS)
        member = torch.nn.functional.one_hot(q.argmax(1), q.shape[1]).to(x)
        sums = sums + torch.einsum("nk,n...->k...", member, x)
        if feature_sums is not None:
            feature_sums = None if features is None else feature_sums + torch.einsum("nk,n...->k...", member, features)
        sizes = sizes + member.sum(0)
    # Cloned: tensors made in inference mode could not be part of a path whose gradient is taken.
    features = None if feature_sums is None else _per_image(feature_sums, sizes)
    return Cohort(_per_image(sums, sizes), features, sizes.clone())


def _features_and_assignment(model: Explainable, x: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
    try:
        features = model.feature_maps(x)
    except FitError:  # a network that gives vectors: its images can be explained all the same
        return None, model.soft_assignment(x)
    with torch.inference_mode():
        return features, model.differentiable_assignment(features, of_features=True)


def _per_image(sums: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    return sums.clone() / sizes.clone().clamp_min(1).reshape(-1, *[1] * (sums.ndim - 1))


@dataclass(frozen=True)
class Question:
    """Why is each image in ``cluster`` (n,), and not in ``against`` (n,)? -1: not in any other. ``cohort``: see there.

    ``cohort`` is None for rules whose ``needs_cohort`` is False.
    """

    cluster: torch.Tensor
    against: torch.Tensor
    cohort: Cohort | None = None

    def log_odds(self, q: torch.Tensor) -> torch.Tensor:
        """Soft assignment q (n, K) -> (n,): log q_c - log q_a, or with a = -1 log q_c - log sum_(j != c) q_j.

        Not log q_c: of a sure image it has no slope, while the log odds still grow.
        """
        own = q.gather(1, self.cluster[:, None])[:, 0]
        rest = torch.where(self.others(q.shape[1]), q, 0.0).sum(1)
        return own.clamp_min(SMALLEST).log() - rest.clamp_min(SMALLEST).log()

    def others(self, n_clusters: int) -> torch.Tensor:
        """Return which clusters (n, K) each image's cluster is compared with."""
        numbers = torch.arange(n_clusters, device=self.cluster.device)
        every = numbers != self.cluster[:, None]
        return torch.where(self.against[:, None] < 0, every, numbers == self.against[:, None])

    def reference(self) -> torch.Tensor:
        """Return (n, C, \\*grid): the mean image of the clusters that each image's cluster is compared with."""
        cohort = self.known()
        return cohort.of(self.others(len(cohort.sizes)).to(cohort.means))

    def reference_features(self) -> torch.Tensor:
        """As ``reference``, of feature maps: (n, F, \\*small)."""
        cohort = self.known()
        return cohort.features_of(self.others(len(cohort.sizes)).to(cohort.means))

    def known(self) -> Cohort:
        """Return the cohort, for rules that need one."""
        assert self.cohort is not None, "only rules that need a cohort ask for it, and they are given one"
        return self.cohort


class Rule(Protocol):
    """How a map is made; a small frozen dataclass of its own settings."""

    @property
    def needs_cohort(self) -> bool:
        """Whether its question must hold the cohort."""

    @property
    def name(self) -> str:
        """What stands in files and figures."""

    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> maps (n, *grid), and figures (n,) about each of them."""


Facts = dict[str, torch.Tensor]
