"""Where an image shows something: padding at its borders tells of the file, not of what was imaged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medstrata.images.grid import AxisMap
from medstrata.images.records import FloatArray

TOLERANCE = 0.03  # of the range [0, 1]: padding may be compressed or noisy
MARKERS = 0.05  # share of a row or column of padding that may differ: letters beside the image
SMALLEST = 8  # rows or columns; less is left of no image but an empty one


def content_box(images: FloatArray) -> tuple[slice, slice]:
    """Return the rows and columns of images ``(n, C, H, W)`` in [0, 1], taken as one, without the padding around them.

    Padding are rows and columns at the border that hold one value, but for a share of ``MARKERS``. An image that would
    have fewer than ``SMALLEST`` rows or columns left keeps them all.
    """
    rows, columns = (np.flatnonzero(_varies(images, axis)) for axis in (3, 2))
    if min(len(rows), len(columns)) < SMALLEST:
        return slice(0, images.shape[2]), slice(0, images.shape[3])
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _varies(images: FloatArray, axis: int) -> NDArray[np.bool_]:
    """Tell the rows (``axis`` 3) or columns (2) that hold more than one value in some channel of some image."""
    differs = np.abs(images - np.median(images, axis=axis, keepdims=True)) > TOLERANCE
    varies: NDArray[np.bool_] = (differs.mean(axis=axis) > MARKERS).any(axis=(0, 1))
    return varies


def content_axes(images: FloatArray, grid: Sequence[int]) -> list[AxisMap]:
    """Stretch ``grid`` (rows, columns) over the content of ``images`` ``(n, C, H, W)``, and nothing else."""
    axes = []
    for box, size in zip(content_box(images), grid, strict=True):
        scale = (box.stop - box.start) / size
        axes.append(AxisMap(scale, box.start + (scale - 1) / 2, size))
    return axes
