"""What the pixels of an image tell of how it was made, and no header says: sharpness, noise, margins, brightness.

Measured on ``pixels.npy``, which is what the model sees. Shapes: R rows, M images, C channels; n rows of one block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Greys = NDArray[np.float32]
Masks = NDArray[np.bool_]

BLOCK_BYTES = 16 * 2**20  # of float32 grey values measured at once; a few times as much is held
LAPLACIAN_NORM = 6.0  # root of the sum of squares of Immerkaer's mask
RESIDUALS = 2**14  # of an image, at a regular distance, whose median tells the noise
NORMAL_MEDIAN = 0.6744897501960817  # median of |x|, x standard normal
LEVELS = 64  # of the histogram that Otsu's threshold is read from

MEASURES = ("sharpness", "noise", "padding", "coverage", "mean_intensity", "intensity_spread")


def measure_pixels(pixels: NDArray[np.integer], image_ids: Sequence[str] | NDArray[np.str_]) -> pa.Table:
    """Measure every image; rows of one ``image_id``, such as the slices of a volume, are averaged.

    ``pixels`` (R, C, H, W) or (R, C, D, H, W) of uint8 or uint16, which may be mapped from a file; ``image_ids`` (R,).
    Read in blocks, so that memory is bounded by a block. Grey values are means over channels, scaled to [0, 1].

    Returns one row per image, in the order of its first row: ``image_id`` and ``MEASURES``, float64:

    - ``sharpness``: mean absolute difference of horizontal neighbours over the standard deviation of the image, padding
      left out; 0 for a constant image
    - ``noise``: standard deviation of the noise, grey values (see ``noise_level``)
    - ``padding``: share of pixels that are margin (see ``margin``)
    - ``coverage``: share of pixels brighter than Otsu's threshold: the body, where the background is dark
    - ``mean_intensity``, ``intensity_spread``: mean and standard deviation of the grey values, padding included
    """
    rows = _measure_rows(pixels)
    _, first, inverse = np.unique(np.asarray(image_ids), return_index=True, return_inverse=True)
    order = np.argsort(first)
    counts = np.bincount(inverse)
    columns = {"image_id": pa.array(np.asarray(image_ids)[first[order]].tolist(), pa.string())}
    for name, values in rows.items():
        columns[name] = pa.array((np.bincount(inverse, values) / counts)[order])
    return pa.table(columns)


def _measure_rows(pixels: NDArray[np.integer]) -> dict[str, Floats]:
    found = {name: np.empty(len(pixels)) for name in MEASURES}
    grid = int(np.prod(pixels.shape[2:]))
    step = max(1, BLOCK_BYTES // (4 * grid))
    for start in range(0, len(pixels), step):
        block = np.asarray(pixels[start : start + step])
        grey = block.mean(axis=1, dtype=np.float32) / np.float32(np.iinfo(pixels.dtype).max)
        for name, values in _measure(grey).items():
            found[name][start : start + step] = values
    return found


def _measure(grey: Greys) -> dict[str, Floats]:
    """Return the measures (n,) of grey values (n, H, W) or (n, D, H, W)."""
    padding = margin(grey)
    flat = grey.reshape(len(grey), -1)
    return {
        "sharpness": sharpness(grey, padding),
        "noise": noise_level(grey, padding),
        "padding": padding.reshape(len(grey), -1).mean(1),
        "coverage": coverage(grey),
        "mean_intensity": flat.mean(1, dtype=np.float64),
        "intensity_spread": flat.std(1, dtype=np.float64),
    }


def margin(grey: Greys) -> Masks:
    """Return where an image (n, ...) is padded: pixels of one exact value between it and an edge.

    The value is that of most of the image's corners. A pixel belongs to the margin where a straight line along an axis
    leads from it to the edge through nothing but this value: bars, and the corners round a circular field of view.
    """
    constant: Masks = np.asarray(grey == _corner_value(grey).reshape(-1, *[1] * (grey.ndim - 1)))
    found = np.zeros_like(constant)
    for axis in range(1, grey.ndim):
        for ahead, into in ((constant, found), (np.flip(constant, axis), np.flip(found, axis))):
            into |= _unbroken(ahead, axis)
    return found


def _unbroken(constant: Masks, axis: int) -> Masks:
    """Return where ``constant`` (n, ...) has been true from the start of ``axis`` on."""
    side = constant.shape[axis]
    run = np.where(constant.all(axis, keepdims=True), side, constant.argmin(axis, keepdims=True))
    places = np.arange(side).reshape(-1, *[1] * (constant.ndim - 1 - axis))
    return np.asarray(places < run)


def _corner_value(grey: Greys) -> Greys:
    """Return the value (n,) that most corners of an image hold, the smallest of those where several do."""
    corners = grey[(slice(None), *[slice(None, None, max(1, side - 1)) for side in grey.shape[1:]])]
    values = np.sort(corners.reshape(len(grey), -1), axis=1)
    votes = (values[:, :, None] == values[:, None, :]).sum(2)
    return np.take_along_axis(values, votes.argmax(1)[:, None], axis=1)[:, 0]


def sharpness(grey: Greys, padding: Masks) -> Floats:
    """Return mean absolute horizontal difference over standard deviation (n,), both outside the ``padding``."""
    inside = ~padding
    pairs = inside[..., 1:] & inside[..., :-1]
    centred = grey - _mean(grey, inside).reshape(-1, *[1] * (grey.ndim - 1)).astype(np.float32)
    spread = np.sqrt(_mean(centred**2, inside))
    steps = _mean(np.abs(np.diff(grey, axis=-1)), pairs)
    return steps / np.where(spread > 0, spread, 1)


def _mean(values: Greys, inside: Masks) -> Floats:
    """Return the means (n,) of ``values`` (n, ...) where ``inside``; 0 where that is nowhere."""
    axes = tuple(range(1, values.ndim))
    total = (values * inside).sum(axes, dtype=np.float64)
    return np.asarray(total / np.maximum(np.count_nonzero(inside, axis=axes), 1))


def noise_level(grey: Greys, padding: Masks) -> Floats:
    """Return the standard deviation of the noise (n,), from each slice's own second differences.

    The residual of the mask [[1, -2, 1], [-2, 4, -2], [1, -2, 1]] is blind to constant and linear structure; its median
    absolute value, outside the ``padding``, is hardly moved by edges. 0 where no residual lies outside the padding.
    Source: Immerkaer, Fast noise variance estimation, Computer Vision and Image Understanding 64, 1996, with the median
    in place of the mean.
    """
    second = grey[..., 2:] - 2 * grey[..., 1:-1] + grey[..., :-2]
    residual = np.abs(second[..., 2:, :] - 2 * second[..., 1:-1, :] + second[..., :-2, :])
    every = max(1, residual[0].size // RESIDUALS)
    flat = residual.reshape(len(grey), -1)[:, ::every]
    outside = padding[..., 1:-1, 1:-1].reshape(len(grey), -1)[:, ::every]
    if not flat.shape[1]:
        return np.zeros(len(grey))
    ordered = np.sort(np.where(outside, np.inf, flat), axis=1)
    count = (~outside).sum(1)
    places = np.stack([(count - 1).clip(0) // 2, np.minimum(count // 2, flat.shape[1] - 1)], axis=1)
    middle = np.take_along_axis(ordered, places, axis=1).astype(np.float64)
    middle[count == 0] = 0
    return np.asarray(middle.mean(1) / NORMAL_MEDIAN / LAPLACIAN_NORM)


def coverage(grey: Greys) -> Floats:
    """Return the share of pixels (n,) brighter than Otsu's threshold over ``LEVELS`` levels of each image's range.

    Source: Otsu, A threshold selection method from gray-level histograms, IEEE Transactions SMC 9, 1979. 0 for a
    constant image.
    """
    flat = grey.reshape(len(grey), -1)
    low = flat.min(1, keepdims=True)
    width = flat.max(1, keepdims=True) - low
    level = ((flat - low) / np.where(width > 0, width, 1) * (LEVELS - 1)).round().astype(np.int64)
    level += LEVELS * np.arange(len(flat))[:, None]
    counts = np.bincount(level.ravel(), minlength=LEVELS * len(flat)).reshape(-1, LEVELS)
    below = counts.cumsum(1)[:, :-1] / flat.shape[1]
    sums = (counts * np.arange(LEVELS)).cumsum(1) / flat.shape[1]
    between = (sums[:, -1:] * below - sums[:, :-1]) ** 2 / np.maximum(below * (1 - below), 1e-12)
    best = between.argmax(1)
    return np.where(width[:, 0] > 0, 1 - below[np.arange(len(flat)), best], 0.0)
