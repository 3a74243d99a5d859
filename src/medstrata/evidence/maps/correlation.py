"""How alike two maps are."""

from __future__ import annotations

import torch

FLAT = 1e-12  # of a map's largest value: less contrast than that is rounding


def pearson(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Pearson's r (n,) of each pair of maps (n, \\*grid), NaN where one is the same everywhere."""
    a, b = (_centred(one) for one in (first, second))
    sizes = a.norm(dim=1) * b.norm(dim=1)
    r = (a * b).sum(1) / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)
    return torch.where(sizes > 0, r.clamp(-1, 1), torch.nan)


def _centred(maps: torch.Tensor) -> torch.Tensor:
    flat = maps.double().flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    varies = centred.abs().amax(1, keepdim=True) > FLAT * flat.abs().amax(1, keepdim=True)
    return torch.where(varies, centred, 0.0)


def spearman(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Spearman's rank correlation (n,) of each pair of maps (n, \\*grid), NaN where one is the same everywhere."""
    a, b = (torch.stack([_mean_ranks(one) for one in maps.flatten(1)]) for maps in (first, second))
    return pearson(a, b)


def _mean_ranks(values: torch.Tensor) -> torch.Tensor:
    """Rank of each value, 1 for the smallest; equal values share the mean of theirs."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    means: torch.Tensor = last - (counts.double() - 1) / 2
    return means[inverse]
