"""Does a map point at the planted lesion? Scores of one map against one mask, on the map's own grid.

Shapes: map and mask are (D, H, W) or (H, W) on the same grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score


def mask_on_grid(
    mask: NDArray[np.bool_], mask_affine: NDArray[np.float64], grid_affine: NDArray[np.float64], grid: Sequence[int]
) -> NDArray[np.bool_]:
    """Return which voxels of the grid hold the centre of a voxel of ``mask``, or have their centre in one.

    Both affines, (3, 3) in 2-D and (4, 4) in 3-D, go from array indices to one space. A lesion thinner than a voxel of
    the grid is thus never lost, and one of coarse voxels has no holes.
    """
    to_grid = np.linalg.inv(grid_affine) @ mask_affine
    found = np.zeros(tuple(grid), dtype=bool)
    found[_moved(np.argwhere(mask), to_grid, grid)[0]] = True
    everywhere = np.argwhere(np.ones(tuple(grid), dtype=bool))
    where, kept = _moved(everywhere, np.linalg.inv(to_grid), mask.shape)
    found[tuple(everywhere[kept].T)] |= mask[where]
    return found


def _moved(
    index: NDArray[np.int64], matrix: NDArray[np.floating], shape: Sequence[int]
) -> tuple[tuple[NDArray[np.int64], ...], NDArray[np.bool_]]:
    """Move indices (n, axes): the nearest index of each that lies within ``shape``, axis by axis, and which do (n,)."""
    axes = index.shape[1]
    moved = np.rint(index @ matrix[:axes, :axes].T + matrix[:axes, axes]).astype(np.int64)
    kept: NDArray[np.bool_] = np.all((moved >= 0) & (moved < np.array(shape)), axis=1)
    return tuple(moved[kept].T), kept


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


def average_precision(activation: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Area under precision over recall when voxels are taken from the strongest to the weakest; NaN: no mask.

    Signed maps are ranked with their sign. Chance is the share of the mask. The area under the ROC curve is not given:
    where the mask is small it is near 1 for maps that are mostly wrong.
    """
    return float(average_precision_score(mask.ravel(), activation.ravel())) if mask.any() else float("nan")


def dice_at_area(activation: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Dice of the mask and as many of the strongest voxels as the mask has; NaN: no mask. Chance: its share."""
    count = int(mask.sum())
    if not count:
        return float("nan")
    strongest = np.argpartition(activation.ravel(), -count)[-count:]
    return float(mask.ravel()[strongest].mean())


def distractor_share(activation: NDArray[np.floating], mask: NDArray[np.bool_], distractor: NDArray[np.bool_]) -> float:
    """The map's sum in the mask over its sum in mask and distractor, 0..1; NaN where it is empty in both.

    ``activation`` >= 0.
    """
    on, off = (float(activation[where].sum(dtype=np.float64)) for where in (mask, distractor))
    return on / (on + off) if on + off > 0 else float("nan")


def localised(
    signed: NDArray[np.floating], mask: NDArray[np.bool_], distractor: NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """Return all scores of one map; what speaks against the cluster (below zero) counts in average precision only.

    NaN: all of them where the mask is empty, those of the distractor where there is none.
    """
    activation = signed.clip(0)
    found = {
        "average_precision": average_precision(signed, mask),
        "pointing": float(pointing_hit(activation, mask)),
        "energy": energy_share(activation, mask),
        "dice": dice_at_area(signed, mask),
        "chance": float(mask.mean()),
        "distractor_share": float("nan"),
        "peak_on_distractor": float("nan"),
    }
    if distractor is not None and distractor.any():
        found["distractor_share"] = distractor_share(activation, mask, distractor)
        found["peak_on_distractor"] = float(pointing_hit(activation, distractor))
    return found if mask.any() else dict.fromkeys(found, float("nan"))
