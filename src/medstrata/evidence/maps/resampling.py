"""What several rules do with maps: bring them to the grid of the image, smooth them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate


def upsample(features: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Linear interpolation between voxel centres: (n, F, *small) -> (n, F, *grid)."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
    return interpolate(features, size=list(grid), mode=mode, align_corners=False)


def smooth(maps: torch.Tensor, width: float) -> torch.Tensor:
    """Smooth (n, *grid) by a Gaussian of standard deviation ``width`` in voxels; 0: not at all.

    Mirrored at the border, so that the sum over a map stays what it is.
    """
    if not width:
        return maps
    widths = (0.0, *[width] * (maps.ndim - 1))
    return torch.from_numpy(gaussian_filter(maps.double().cpu().numpy(), widths, mode="reflect")).to(maps)
