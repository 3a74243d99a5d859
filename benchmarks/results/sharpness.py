"""PneumoniaMNIST was put together from two sources of different sharpness: how far does that alone explain clusters?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

WIDTHS = np.linspace(0, 3, 31)  # standard deviations of the blur, pixels


def sharpness(images: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean absolute horizontal gradient of images (N, 1, H, W) over their standard deviations: (N,)."""
    pixels = np.asarray(images, np.float64)
    found: NDArray[np.float64] = np.abs(np.diff(pixels, axis=-1)).mean((1, 2, 3)) / pixels.std((1, 2, 3)).clip(1e-9)
    return found


def matched(images: NDArray[Any], quantile: float = 0.1) -> NDArray[np.float32]:
    """Blur each image until it is no sharper than the ``quantile`` of all; those below stay as they are."""
    goal = np.quantile(sharpness(images), quantile)
    result = np.asarray(images, np.float32).copy()
    waiting = np.flatnonzero(sharpness(result) > goal)
    for width in WIDTHS[1:]:
        result[waiting] = gaussian_filter(np.asarray(images[waiting], np.float32), (0, 0, width, width))
        waiting = waiting[sharpness(result[waiting]) > goal]
        if not len(waiting):
            break
    return result
