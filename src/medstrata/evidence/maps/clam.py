"""CLAM: cluster activation maps as published, weighted sums of the encoder's last feature maps. In 2-D and 3-D.

    Ryan, Carlson, Butler, Fingerlin, Maier, Xing: Cluster activation mapping with application to computed tomography
    scans of the lung. J. Med. Imaging 9(2):026001, 2022. arXiv:2010.04794. It modifies Score-CAM (Wang et al., CVPR
    Workshops 2020) for clusters. Code: ryansar/CLAM, commit 6bec7256.

Algorithm
---------
For an image x with cluster c = argmax_j q_j(x), where q is the model's soft assignment:

1. A_k is channel k of the encoder's last layer, U_k is A_k brought to the grid of x.
2. H_k = (U_k - min U_k) / (max U_k - min U_k)                                                                     (1)
3. Each channel masks the image; the confidence in the channel is how much of it still belongs to the cluster:
       M_k = x H_k + b (1 - H_k),    w_k = q_c(M_k)                                                                 (2)
4. The map is the weighted sum of the channels as they are, not of the scaled ones:
       L = ReLU(sum_k w_k U_k)                                                                                      (3)
5. All maps of a set are divided by one number, their largest value, so that their strengths can be compared.
6. The map of a cluster is the mean of the maps of its images.

What to make of it: the weights w_k are often nearly equal, and then the map shows where the encoder is active, whatever
the cluster. So each map comes with the spread of its weights, std(w) / mean(w), and with its correlation with the map
of equal weights: near 1, the weights did not matter.

Deviations
----------
- Channels: the authors' code runs over the wrong axis of its array and uses the first 11 of 64 channels; we use all.
  ``max_channels=11`` does as the code does.
- Background b: the code has b = 0, which the network never saw where the background was set to the mean of the training
  images. We take b = ``model.background``, that mean in the network's space. ``fill="zero"`` does as the code does.
- Upsampling: the code uses cubic splines (``scipy.ndimage.zoom``); we use linear interpolation between voxel centres,
  which never overshoots and is done on the device. As it is linear, (3) is summed on the small grid and upsampled once.
- Flat channels (max U_k - min U_k < 1e-6, or 1e-6 of their values where these exceed 1): the code masks with U_k
  itself. Such a channel says nothing about where, so it is left out: w_k = 0, and it counts neither for the spread nor
  for the map of equal weights.
- Scale and cluster map: steps 5 and 6 are for whoever makes a set of maps: ``evidence.explain`` does both for the rule
  that runs use, which is not this one.
- Baseline: Score-CAM's difference from the score of an empty image and its softmax over channels are left out here, as
  in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from medstrata.errors import FitError
from medstrata.evidence.maps.correlation import pearson
from medstrata.evidence.maps.resampling import upsample
from medstrata.evidence.maps.rule import Explainable, Facts, Question

MASKED_BYTES = {"cpu": 1 << 20, "cuda": 256 << 20}
"""Largest size of the masked images that go through the network at once; one is always let through.

On a CPU they should stay in its cache: with 4 MB the maps take nearly twice as long.
"""

FLAT = 1e-6
ROUNDS = 5  # of the k-means that groups channels


@dataclass(frozen=True)
class Clam:
    """The published rule.

    ``max_channels``: use the first channels only (11: as the authors' code); None: all. ``groups``: channels with
    masks that are alike share one mask and one weight, so that the network runs ``groups`` times an image; None: each
    its own. ``fill``: what a masked-out voxel becomes, ``model.background`` or zero in the network's space.
    ``weighting``: w_k of (2) as it is, "increase" over the empty image (Score-CAM's, never below zero), or their
    "softmax" over the channels (as in common implementations of Score-CAM; it makes them nearly equal).
    """

    max_channels: int | None = None
    fill: Literal["background", "zero"] = "background"
    groups: int | None = None
    weighting: Literal["probability", "increase", "softmax"] = "probability"
    needs_cohort = False
    name = "Cluster activation map (Ryan et al., J. Med. Imaging 2022)"

    def __post_init__(self) -> None:
        counts = [count for count in (self.max_channels, self.groups) if count is not None]
        if self.fill not in ("background", "zero") or min(counts, default=1) < 1:
            raise FitError('Clam needs max_channels and groups >= 1 or None, and fill "background" or "zero".')
        if self.weighting not in ("probability", "increase", "softmax"):
            raise FitError('Clam needs weighting "probability", "increase" or "softmax".')

    @torch.inference_mode()
    def explain(self, model: Explainable, x: torch.Tensor, question: Question) -> tuple[torch.Tensor, Facts]:
        """Images (n, C, *grid) as the network sees them -> maps (n, *grid), >= 0, in no common scale.

        ``weight_spread`` (n,): std(w) / mean(w); ``uniform_correlation`` (n,): Pearson's r with the map of equal
        weights, NaN where either map is the same everywhere.
        """
        if (question.against >= 0).any():
            raise FitError("Clam weighs channels for one cluster alone. To compare two, use IntegratedGradients().")
        features = model.feature_maps(x)[:, : self.max_channels]
        weights, used = self._weights(model, x, features, question.cluster)
        maps = weighted_map(features, weights, x.shape[2:])
        uniform = weighted_map(features, used.to(features.dtype), x.shape[2:])
        return maps, {"weight_spread": _spread(weights, used), "uniform_correlation": pearson(maps, uniform)}

    def _weights(
        self, model: Explainable, x: torch.Tensor, features: torch.Tensor, cluster: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (n, F) of the channels, 0 for those that are not used, and which are used (n, F)."""
        background = float(model.background) if self.fill == "background" else 0.0
        if self.groups is not None and self.groups < features.shape[1]:
            weights, used = group_weights(model, x, features, cluster, background, self.groups)
        else:
            weights, used = channel_weights(model, x, features, cluster, background)
        if self.weighting == "increase":
            empty = model.soft_assignment(torch.full_like(x[:1], background))[0, cluster]
            weights = (weights - empty[:, None]).clamp(min=0) * used
        elif self.weighting == "softmax":
            weights = torch.where(used, weights.masked_fill(~used, -torch.inf).softmax(1), 0.0)
        return weights, used


def _spread(weights: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """Standard deviation over mean (n,) of the weights (n, F) of the channels that are used; 0 where the mean is."""
    count = used.sum(1).clamp(min=1)
    mean = weights.sum(1) / count
    deviation = ((weights - mean[:, None]).square() * used).sum(1).div(count).sqrt()
    return torch.where(mean > 0, deviation / mean.clamp(min=torch.finfo(mean.dtype).tiny), 0.0)


def channel_weights(
    model: Explainable, x: torch.Tensor, features: torch.Tensor, cluster: torch.Tensor, background: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Equations (1) and (2): images (n, C, *grid) and feature maps (n, F, *small) -> weights (n, F), used (n, F).

    ``used`` is False for flat channels, whose weight is 0.
    """
    count, channels = features.shape[:2]
    weights = features.new_zeros(count, channels)
    used = torch.zeros(count, channels, dtype=torch.bool, device=features.device)
    limit = MASKED_BYTES.get(x.device.type, MASKED_BYTES["cuda"])
    step = max(1, limit // (x.nbytes // count))  # masked images at once
    rows = max(1, step // channels)  # several images where all their channels fit, else one and some of its channels
    contrast = x - background
    for start in range(0, count, rows):
        some = slice(start, start + rows)
        for first in range(0, channels, step):
            part = slice(first, first + step)
            mask, usable = scaled_masks(features[some, part], x.shape[2:])
            # M = b + (x - b) H is x H + b (1 - H) with one product less.
            masked = (contrast[some, None] * mask[:, :, None]).add_(background)
            q = model.soft_assignment(masked.flatten(0, 1)).unflatten(0, mask.shape[:2])
            own = cluster[some, None, None].expand(-1, mask.shape[1], 1)
            weights[some, part] = q.gather(2, own).squeeze(2) * usable
            used[some, part] = usable
    return weights, used


def group_weights(
    model: Explainable,
    x: torch.Tensor,
    features: torch.Tensor,
    cluster: torch.Tensor,
    background: float,
    groups: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``channel_weights``, with one weight for each group of channels: that of the mean of their masks (1)."""
    flat = features.flatten(2)
    low, high = torch.aminmax(flat, dim=2, keepdim=True)
    smallest = FLAT * torch.maximum(low.abs(), high.abs()).clamp(min=1)
    used = (high - low)[..., 0] >= smallest[..., 0]
    masks = (flat - low) / torch.maximum(high - low, smallest)
    member = _groups(masks, used, groups)
    means = torch.einsum("nfg,nfv->ngv", member, masks) / member.sum(1).clamp(min=1)[..., None]
    found, told = channel_weights(model, x, means.unflatten(2, features.shape[2:]), cluster, background)
    weights, known = (torch.einsum("nfg,ng->nf", member, of.to(member)) for of in (found, told))
    if (used & (known == 0)).any():  # opposite masks in one group: its mean tells nothing, so they keep their own
        weights = torch.where(known > 0, weights, channel_weights(model, x, features, cluster, background)[0])
    return weights, used


def _groups(masks: torch.Tensor, used: torch.Tensor, groups: int) -> torch.Tensor:
    """Group alike masks (n, F, V) of each image by k-means: membership (n, F, G), 0 for those not ``used`` (n, F)."""
    brightness = masks.mean(2).where(used, torch.inf).argsort(dim=1)
    spread = (torch.linspace(0, 1, groups, device=masks.device) * (used.sum(1, keepdim=True) - 1).clamp(min=0)).long()
    first = brightness.gather(1, spread)  # spread from the darkest to the brightest mask
    centres = masks.gather(1, first[..., None].expand(-1, -1, masks.shape[2]))
    for _ in range(ROUNDS):
        nearest = torch.cdist(masks, centres).argmin(2)
        member = torch.nn.functional.one_hot(nearest, groups).to(masks) * used[..., None]
        count = member.sum(1)[..., None]
        means = torch.einsum("nfg,nfv->ngv", member, masks) / count.clamp(min=1)
        centres = torch.where(count > 0, means, centres)
    return member


def scaled_masks(features: torch.Tensor, grid: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Equation (1): feature maps (n, F, *small) -> masks in 0..1 (n, F, *grid); which channels are not flat (n, F)."""
    mask = upsample(features, grid)
    low, high = torch.aminmax(mask.flatten(2), dim=2)
    spatial = (..., *[None] * len(grid))
    smallest = FLAT * torch.maximum(low.abs(), high.abs()).clamp(min=1)  # rounding of large values is no contrast
    span = high - low
    mask = mask.sub_(low[spatial]).div_(torch.maximum(span, smallest)[spatial])
    return mask, span >= smallest


def weighted_map(features: torch.Tensor, weights: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Equation (3): feature maps (n, F, *small), weights (n, F) -> maps (n, *grid)."""
    small = torch.einsum("nf,nf...->n...", weights, features)
    return upsample(small[:, None], grid)[:, 0].relu_()
