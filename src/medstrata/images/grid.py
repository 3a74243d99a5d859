"""From a source's own pixels to the common grid that the network sees, and back again.

Both ways use one separable resampling. Along one axis, output index ``i`` lies at input coordinate
``x = scale * i + offset``, and ::

    out[i] = sum_j w[i, j] in[j] / sum_j w[i, j],     w[i, j] = max(0, 1 - |x - j| / max(1, |scale|))

a triangle as wide as the larger of both steps: linear interpolation where the output is finer, an anti-aliased mean
where it is coarser (the "bilinear" filter of Pillow's ``resize``). ``out[i] = 0`` where ``x`` lies outside the input,
that is outside ``[-0.5, n - 0.5]``.

Three-dimensional grids stand in canonical order: D towards the patient's Superior, H towards Posterior, W towards Left
("SPL"). Axes are exchanged and turned round, never rotated: an oblique volume keeps its own axes, and its
``grid_affine`` says where they point. In two dimensions an image with known directions is turned round so that rows
and columns run towards left, posterior or inferior, which is how such images are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from medstrata.errors import FileProblem

FloatArray = NDArray[np.float32]
Affine = NDArray[np.float64]

_orientations: Any = nibabel.orientations  # carries no types

CANONICAL = ("S", "P", "L")
SHOWN_TOWARDS = np.array([-1.0, -1.0, -1.0])  # left, posterior, inferior in RAS


@dataclass(frozen=True, slots=True)
class AxisMap:
    """One axis of a resampling: output index ``i`` lies at input coordinate ``scale * i + offset``."""

    scale: float
    offset: float
    size: int  # number of output samples


def weights(axis: AxisMap, n_in: int) -> FloatArray:
    """Return the matrix ``(axis.size, n_in)`` of the formula at the top of this module; rows sum to 1 or are 0."""
    position = axis.scale * np.arange(axis.size) + axis.offset
    distance = np.abs(position[:, None] - np.arange(n_in)[None, :])
    matrix = np.maximum(0.0, 1.0 - distance / max(1.0, abs(axis.scale)))
    total = matrix.sum(axis=1, keepdims=True)
    inside = (position >= -0.5 - 1e-6) & (position <= n_in - 0.5 + 1e-6)
    matrix = np.where(inside[:, None], matrix / np.where(total > 0, total, 1.0), 0.0)
    return np.asarray(matrix, dtype=np.float32)


def resample(array: NDArray[np.float32], axes: Sequence[AxisMap]) -> FloatArray:
    """Resample the last ``len(axes)`` axes of ``array``; leading axes (images, channels) are carried along."""
    out = np.asarray(array, dtype=np.float32)
    for number, axis in enumerate(axes):
        out = _resample_axis(out, axis, out.ndim - len(axes) + number)
    return np.ascontiguousarray(out)


def _resample_axis(array: FloatArray, axis: AxisMap, at: int) -> FloatArray:
    if abs(axis.scale) == 1.0 and float(axis.offset).is_integer():
        return _shift_axis(array, axis, at)
    moved = np.moveaxis(array, at, 0)
    matrix = scipy.sparse.csr_array(weights(axis, len(moved)))  # sparse: quick, and wakes no threads of BLAS
    out = matrix @ np.ascontiguousarray(moved).reshape(len(moved), -1)
    return np.moveaxis(out.reshape(axis.size, *moved.shape[1:]), 0, at)


def _shift_axis(array: FloatArray, axis: AxisMap, at: int) -> FloatArray:
    """Pad, crop or turn round by whole samples: no value changes."""
    if axis.scale < 0:
        array, axis = np.flip(array, at), turned(axis, array.shape[at])
    first = int(axis.offset)  # of the input, under the first sample of the output
    start, stop = max(0, -first), min(axis.size, array.shape[at] - first)
    if (start, stop) == (0, axis.size) and axis.size == array.shape[at]:
        return array
    out = np.zeros((*array.shape[:at], axis.size, *array.shape[at + 1 :]), dtype=np.float32)
    if start < stop:
        every = (slice(None),) * at
        out[(*every, slice(start, stop))] = array[(*every, slice(start + first, stop + first))]
    return out


def centred_axes(
    shape: Sequence[int], grid: Sequence[int], step: Sequence[float] | None, spacing: Sequence[float] | None
) -> list[AxisMap]:
    """Lay a grid over a source with both centres together.

    ``shape``, ``spacing``: samples and mm per sample of the source (``None``: 1 each). ``step``: mm per grid step;
    ``None`` scales the source to fill the grid with its aspect kept. Where one grid step is one source sample the
    grid is moved by less than a sample so that values are copied, not interpolated.
    """
    source_spacing = [1.0] * len(shape) if spacing is None else [float(value) for value in spacing]
    if not all(np.isfinite(value) and value > 0 for value in source_spacing):
        raise FileProblem("bad_spacing", "The spacing in the header is zero, negative or not a number.")
    if step is None:
        fill = max(n * mm / g for n, mm, g in zip(shape, source_spacing, grid, strict=True))
        step = [fill] * len(shape)
    axes = []
    for n, mm, g, target in zip(shape, source_spacing, grid, step, strict=True):
        scale = float(target) / mm
        if abs(scale * g - g) < 1e-3:  # less than a thousandth of a sample over the whole axis
            axes.append(AxisMap(1.0, float((n - g) // 2), g))
        else:
            axes.append(AxisMap(scale, (n - 1) / 2 - scale * (g - 1) / 2, g))
    return axes


def turned(axis: AxisMap, n_in: int) -> AxisMap:
    """The same resampling of the axis read from its other end."""
    return AxisMap(-axis.scale, n_in - 1 - axis.offset, axis.size)


def to_grid_2d(
    images: FloatArray,
    grid: Sequence[int],
    step: Sequence[float] | None = None,
    spacing: Sequence[float] | None = None,
    affine: Affine | None = None,
) -> tuple[FloatArray, list[float]]:
    """Bring images ``(..., H, W)`` of one shape onto ``grid`` (rows, columns): centred, padded with 0.

    Returns the images ``(..., *grid)`` and ``crop = [scale_rows, scale_columns, offset_row, offset_column]`` with
    ``source_row = scale_rows * grid_row + offset_row``. ``step`` and ``spacing`` as in ``centred_axes``. ``affine``
    ``(4, 4)`` from array indices ``(d, h, w)`` to RAS mm; with it, rows and columns are turned round (a negative
    scale) where they run towards right, anterior or superior.
    """
    return place_2d(images, centred_axes(images.shape[-2:], grid, step, spacing), affine)


def place_2d(
    images: FloatArray, axes: Sequence[AxisMap], affine: Affine | None = None
) -> tuple[FloatArray, list[float]]:
    """Bring images ``(..., H, W)`` onto the grid of ``axes``; returns what ``to_grid_2d`` does."""
    if affine is not None:
        axes = [
            turned(axis, n) if _runs_backwards(affine[:3, column]) else axis
            for axis, n, column in zip(axes, images.shape[-2:], (1, 2), strict=True)
        ]
    crop = [axes[0].scale, axes[1].scale, axes[0].offset, axes[1].offset]
    return resample(images, axes), crop


def _runs_backwards(direction: NDArray[np.float64]) -> bool:
    main = int(np.argmax(np.abs(direction)))
    return bool(direction[main] * SHOWN_TOWARDS[main] < 0)


def to_source_2d(image: FloatArray, crop: Sequence[float], source_shape: Sequence[int]) -> FloatArray:
    """Bring ``(..., rows, columns)`` on the grid back onto the source's pixels; 0 where the grid does not reach."""
    axes = [
        AxisMap(1.0 / crop[number], -crop[number + 2] / crop[number], int(source_shape[number])) for number in (0, 1)
    ]
    return resample(image, axes)


def to_canonical(volume: NDArray[np.float32], affine: Affine) -> tuple[NDArray[np.float32], Affine]:
    """Exchange and turn round the axes of ``(C, D, H, W)`` so that they run towards S, P, L; a view.

    Raises
    ------
    FileProblem : the affine does not span three dimensions (``bad_geometry``)
    """
    axes = _orientations.io_orientation(affine)
    if not (np.isfinite(affine).all() and np.isfinite(axes).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9):
        raise FileProblem("bad_geometry", "The directions in the header do not span three dimensions.")
    change = _orientations.ornt_transform(axes, _orientations.axcodes2ornt(CANONICAL))
    shape = volume.shape[1:]
    channels_last = _orientations.apply_orientation(np.moveaxis(volume, 0, -1), change)
    return np.moveaxis(channels_last, -1, 0), np.asarray(
        affine @ _orientations.inv_ornt_aff(change, shape), dtype=np.float64
    )


def to_grid_3d(
    volume: FloatArray,
    grid: Sequence[int],
    step: Sequence[float] | None = None,
    affine: Affine | None = None,
    spacing: Sequence[float] | None = None,
) -> tuple[FloatArray, Affine | None]:
    """Bring one volume ``(C, D, H, W)`` onto ``grid`` in canonical order, centred on its centre, padded with 0.

    Returns the volume ``(C, *grid)`` and ``grid_affine`` ``(4, 4)`` from grid indices to RAS mm. With ``affine=None``
    the axes keep their order, ``spacing`` (or 1) is used, and ``grid_affine`` is ``None``.

    Raises
    ------
    FileProblem : the geometry cannot be used (``bad_geometry``, ``bad_spacing``)
    """
    if affine is None:
        return resample(volume, centred_axes(volume.shape[1:], grid, step, spacing)), None
    volume, affine = to_canonical(volume, affine)
    axes = centred_axes(volume.shape[1:], grid, step, np.linalg.norm(affine[:3, :3], axis=0))
    return resample(volume, axes), affine @ _affine_of(axes)


def _affine_of(axes: Sequence[AxisMap]) -> Affine:
    matrix = np.diag([*(axis.scale for axis in axes), 1.0])
    matrix[:3, 3] = [axis.offset for axis in axes]
    return matrix


def to_source(
    volume: FloatArray, grid_affine: Affine, source_affine: Affine, source_shape: Sequence[int]
) -> FloatArray:
    """Bring ``(D, H, W)`` on a grid of ``to_grid_3d`` back onto its source's voxels; 0 where the grid does not reach.

    Both affines ``(4, 4)`` lead from array indices to RAS mm.

    Raises
    ------
    ValueError : the axes of grid and source are not parallel: the grid was made from another volume
    """
    matrix = np.linalg.inv(np.asarray(grid_affine, dtype=np.float64)) @ np.asarray(source_affine, dtype=np.float64)
    linear = matrix[:3, :3]
    of_source = np.argmax(np.abs(linear), axis=0)  # for each source axis the grid axis it runs along
    rest = linear.copy()
    rest[of_source, np.arange(3)] = 0.0
    if len(set(of_source.tolist())) != 3 or np.abs(rest).max() > 1e-3 * np.abs(linear).max():
        raise ValueError("grid_affine and source_affine have no common axes: they belong to different volumes")
    axes = [
        AxisMap(float(linear[along, number]), float(matrix[along, 3]), int(source_shape[number]))
        for number, along in enumerate(of_source)
    ]
    return resample(np.transpose(volume, of_source), axes)
