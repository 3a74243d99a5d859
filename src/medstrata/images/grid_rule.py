"""The common grid that images are brought onto, from the sizes in the catalog."""

from __future__ import annotations

import math

import numpy as np

from medstrata.images.plan import GRID_MULTIPLE, GRID_SIDES
from medstrata.images.selection import Row

LARGEST_GRID_2D = {"categories": 64, "subtypes": 96}
LARGEST_GRID_3D = 64
SMALLEST_GRID_2D = 32  # smaller grids leave the networks nothing to see
CANONICAL_ORDER = {"coronal": (1, 0, 2), "sagittal": (1, 2, 0)}  # where S, P, L stand among slices, rows, columns


def choose_grid(
    rows: list[Row], goal: str, dimensions: int, reasons: dict[str, str]
) -> tuple[list[int], list[float] | None]:
    """Return the plan's ``grid`` and ``spacing``; their reasons are written into ``reasons``."""
    return _grid_3d(rows, reasons) if dimensions == 3 else _grid_2d(rows, goal, reasons)


def crops_to_content(rows: list[Row], goal: str, spacing: list[float] | None, reasons: dict[str, str]) -> bool:
    """Whether padding is cut off: categories are told by what is shown; arrays were laid out by who made them."""
    crops = goal == "categories" and spacing is None and any(row["format"] != "array" for row in rows)
    if crops:
        reasons["spacing"] = "What an image shows, without padding at its borders, is stretched over the grid."
    return crops


def _multiple(value: float, largest: int) -> int:
    return int(min(max(GRID_MULTIPLE * math.ceil(value / GRID_MULTIPLE), GRID_SIDES[0]), largest))


def _grid_2d(rows: list[Row], goal: str, reasons: dict[str, str]) -> tuple[list[int], list[float] | None]:
    shorter = float(np.median([min(row["rows"], row["columns"]) for row in rows]))
    side = _multiple(shorter, LARGEST_GRID_2D[goal])
    side = max(side, SMALLEST_GRID_2D)
    reasons["grid"] = (
        f"The median shorter side of the images is {shorter:g} pixels; a multiple of {GRID_MULTIPLE} up to "
        f"{LARGEST_GRID_2D[goal]} keeps fitting on a CPU possible."
    )
    shapes = {(row["rows"], row["columns"]) for row in rows}
    bare = all(row["spacing_rows"] is None for row in rows)
    if bare and len(shapes) == 1 and max(max(shape) for shape in shapes) <= side:
        reasons["spacing"] = "All images have one shape that fits the grid: pixels are copied, not interpolated."
        return [side, side], [1.0, 1.0]
    reasons["spacing"] = "Each image is scaled to fill the grid, its aspect in mm kept."
    return [side, side], None


def _grid_3d(rows: list[Row], reasons: dict[str, str]) -> tuple[list[int], list[float] | None]:
    sized = [row for row in rows if None not in _voxel(row)]
    if 2 * len(sized) < len(rows):
        shape = np.max([(row["slices"], row["rows"], row["columns"]) for row in rows], axis=0)
        grid = [_multiple(float(n), LARGEST_GRID_3D) for n in shape]
        reasons["grid"] = "It covers the largest array; no size in mm is known."
        fits = all(n <= side for n, side in zip(shape, grid, strict=True))
        return grid, [1.0, 1.0, 1.0] if fits else None
    extents = np.array([_extent(row) for row in sized])
    covered = np.percentile(extents, 90, axis=0)
    finest = float(np.median([min(value for value in _voxel(row) if value) for row in sized]))
    step = max(_round_up(float(covered.max()) / LARGEST_GRID_3D), round(finest, 3))
    grid = [_multiple(float(mm) / step, LARGEST_GRID_3D) for mm in covered]
    size = " x ".join(f"{mm:.0f}" for mm in covered)
    reasons["grid"] = f"It covers {size} mm (S, P, L), the 90th percentile of the volumes' extents."
    reasons["spacing"] = (
        f"{step:g} mm lets the longest extent fit {LARGEST_GRID_3D} steps, or is the finest spacing of the volumes."
    )
    return grid, [step, step, step]


def _voxel(row: Row) -> tuple[float | None, float | None, float | None]:
    return row["spacing_slices"], row["spacing_rows"], row["spacing_columns"]


def _extent(row: Row) -> list[float]:
    """Size in mm along S, P, L, as far as the plane of the slices tells."""
    counts = (row["slices"], row["rows"], row["columns"])
    sizes = [n * float(mm or 1.0) for n, mm in zip(counts, _voxel(row), strict=True)]
    return [sizes[number] for number in CANONICAL_ORDER.get(row["orientation"], (0, 1, 2))]


def _round_up(mm: float) -> float:
    unit = 2 if mm > 2 else 10  # to half millimetres, below 2 mm to tenths
    return math.ceil(round(mm * unit, 6)) / unit
