"""Does a map point at the planted lesion? Scores of one map against one mask, on the map's own grid.

Shapes: map and mask are (D, H, W) or (H, W) on the same grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mask_on_grid(
    mask: NDArray[np.bool_], mask_affine: NDArray[np.float64], grid_affine: NDArray[np.float64], grid: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Return which voxels of the grid hold the centre of at least one voxel of ``mask``.

    Both affines go from array indices to mm. A lesion thinner than a grid voxel is thus never lost.
    """
    inside = np.argwhere(mask)
    to_grid = np.linalg.inv(grid_affine) @ mask_affine
    index = np.rint(inside @ to_grid[:3, :3].T + to_grid[:3, 3]).astype(int)
    index = index[((index >= 0) & (index < grid)).all(1)]
    found = np.zeros(grid, dtype=bool)
    found[tuple(index.T)] = True
    return found


def pointing_hit(activation: NDArray[np.floating], mask: NDArray[np.bool_]) -> bool:
    """Pointing game: whether the map's strongest voxel lies in the mask (no tolerance).

    Chance is the share of the mask in the grid. Source: Zhang et al., Top-down neural attention by excitation
    backprop, 2018.
    """
    return bool(mask.flat[int(np.argmax(activation))]) and float(np.max(activation)) > 0


def energy_share(activation: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Energy pointing: the share (0..1) of the map's sum that lies in the mask; 0 for an empty map."""
    total = float(activation.sum(dtype=np.float64))
    return float(activation[mask].sum(dtype=np.float64)) / total if total > 0 else 0.0
