"""Geometry of a stack of parallel slices: order, spacing, what is wrong with it, and where its voxels lie.

A stack that is not regular is named, never repaired: nothing is interpolated and no spacing is made up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medstrata.images.dicom_frames import Plane

SAME_POSITION = 0.001  # mm: closer than this is the same place
SPACING_TOLERANCE = 0.1  # of the spacing, for every single step: positions in headers are often rounded
DRIFT_TOLERANCE = 0.25  # of the spacing, for the distance of any slice from the even grid through first and last slice
TILT_TOLERANCE = 0.5  # degrees between the line through the slices and their normal
IN_PLANE_TOLERANCE = 0.5  # mm, for the distance of any slice from the straight line through first and last slice
ORIENTATION_TOLERANCE = 1e-3  # per direction cosine
NAMED_POSITIONS = 12  # positions listed in a note

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Float64Array = NDArray[np.float64]


class Stack(NamedTuple):
    """What ``stack_geometry`` finds. ``order`` are indices of the planes sorted along the normal."""

    geometry: str
    note: str
    spacing: float | None
    order: list[int]


def normal_of(plane: Plane) -> Float64Array:
    """Return the unit normal: the cross product of the directions of rows and columns."""
    normal = np.cross(np.asarray(plane.row), np.asarray(plane.column))
    return np.asarray(normal / np.linalg.norm(normal), np.float64)


def heights(planes: Sequence[Plane]) -> Float64Array:
    """Return the position of every plane in mm along the normal of the first."""
    return np.array([plane.position for plane in planes], np.float64) @ normal_of(planes[0])


def same_orientation(one: Plane, other: Plane) -> bool:
    """Whether two planes are parallel with the same axes."""
    difference = np.subtract((*one.row, *one.column), (*other.row, *other.column))
    return bool(np.abs(difference).max() < ORIENTATION_TOLERANCE)


def stack_geometry(planes: Sequence[Plane]) -> Stack:
    """Sort parallel planes along their normal and say whether they form a regular stack.

    The spacing of a regular or tilted stack is the mean step (its first and last slice are exact), that of one with
    missing slices the step between neighbours, of an uneven one the median step; None where there is no step.
    """
    if len(planes) == 1:
        return Stack("single", "", None, [0])
    along = heights(planes)
    order = sorted(range(len(planes)), key=lambda index: along[index])
    along = along[order]
    steps = np.diff(along)
    span = float(along[-1] - along[0])
    apart = steps > SAME_POSITION
    if not apart.all():
        note = f"Several slices lie at {_listed(along[1:][~apart])} mm along the slice normal."
        return Stack("duplicate_position", note, float(np.median(steps[apart])) if apart.any() else None, order)
    spacing = span / len(steps)
    drift = np.abs(along - along[0] - spacing * np.arange(len(along))).max()
    if np.abs(steps - spacing).max() <= SPACING_TOLERANCE * spacing and drift <= DRIFT_TOLERANCE * spacing:
        geometry, note = _sideways([planes[index] for index in order], span)
        return Stack(geometry, note, spacing, order)
    gaps = _missing(along, steps)
    if gaps is not None:
        base, missing = gaps
        count = f"{len(missing)} slice is" if len(missing) == 1 else f"{len(missing)} slices are"
        return Stack("missing_slice", f"{count} missing at {_listed(missing)} mm along the slice normal.", base, order)
    note = f"Steps between slices vary from {steps.min():.4g} to {steps.max():.4g} mm."
    return Stack("uneven", note, float(np.median(steps)), order)


def _sideways(planes: Sequence[Plane], span: float) -> tuple[str, str]:
    """Return geometry and note from the displacement across the normal of planes that are evenly spaced along it."""
    positions = np.array([plane.position for plane in planes], np.float64)
    normal = normal_of(planes[0])
    across = positions - positions[0]
    across -= np.outer(across @ normal, normal)
    line = np.outer(np.linspace(0.0, 1.0, len(planes)), across[-1])
    if np.linalg.norm(across - line, axis=1).max() > IN_PLANE_TOLERANCE:
        return "uneven", "Slices are shifted against each other within their plane."
    angle = math.degrees(math.atan2(float(np.linalg.norm(across[-1])), span))
    if angle > TILT_TOLERANCE:
        return "tilted", f"The slices are stacked at {angle:.1f} degrees to their normal (gantry tilt)."
    return "regular", ""


def _missing(along: Float64Array, steps: Float64Array) -> tuple[float, Float64Array] | None:
    """Return base step and heights of missing slices when all steps are multiples of one step, else None.

    At most as many slices may be missing as there are; beyond that nothing speaks for a regular stack with gaps.
    """
    for base in (float(np.sort(steps)[(len(steps) - 1) // 2]), float(steps.min())):
        multiples = np.round(steps / base)
        fits = np.abs(steps - multiples * base) <= SPACING_TOLERANCE * base * multiples
        missing = int((multiples - 1).sum())
        if multiples.min() >= 1 and fits.all() and 0 < missing <= len(along):
            places = [
                start + step * part / multiple
                for start, step, multiple in zip(along[:-1], steps, multiples, strict=True)
                for part in range(1, int(multiple))
            ]
            return float(np.median(steps / multiples)), np.array(places, np.float64)
    return None


def _listed(positions: Float64Array) -> str:
    unique = list(dict.fromkeys(f"{round(float(position), 2) + 0.0:g}" for position in positions))
    more = f" and {len(unique) - NAMED_POSITIONS} more" if len(unique) > NAMED_POSITIONS else ""
    return ", ".join(unique[:NAMED_POSITIONS]) + more


def median_step(planes: Sequence[Plane], indices: Sequence[int]) -> float | None:
    """Return the median mm per slice along the normal of planes with these slice indices; None where there is none."""
    steps = np.abs(np.diff(heights(planes)) / np.diff(indices))
    apart = steps[steps > SAME_POSITION]
    return float(np.median(apart)) if apart.size else None


def series_affine(
    planes: Sequence[Plane | None], spacing: tuple[float, float] | None, indices: Sequence[int] | None = None
) -> Float64Array | None:
    """Return the 4x4 matrix from array indices (slice, row, column, 1) to RAS millimetres, or None without geometry.

    ``planes`` stand in the order of the array; ``indices`` are their slice indices in the stack when they are only
    some of its slices (by default 0, 1, 2, ...). ``spacing`` is mm between rows and between columns. The step between
    slices is taken from the positions, so that tilted stacks are right too; a single slice gets its unit normal (1 mm)
    as slice axis. None also when the slices do not lie on one even grid, or are not parallel.
    """
    known = [plane for plane in planes if plane is not None]
    if not known or len(known) < len(planes) or spacing is None:
        return None
    first = known[0]
    at = np.arange(len(known)) if indices is None else np.asarray(indices)
    positions = np.array([plane.position for plane in known], np.float64)
    step = normal_of(first)
    if at[-1] != at[0]:
        step = (positions[-1] - positions[0]) / float(at[-1] - at[0])
        off = np.linalg.norm(positions - positions[0] - np.outer(at - at[0], step), axis=1).max()
        length = float(np.linalg.norm(step))
        if length <= SAME_POSITION or off > max(DRIFT_TOLERANCE * length, SAME_POSITION):
            return None
        if not all(same_orientation(first, plane) for plane in known[1:]):
            return None
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = np.asarray(first.column) * spacing[0]
    affine[:3, 2] = np.asarray(first.row) * spacing[1]
    affine[:3, 3] = positions[0] - step * float(at[0])
    return np.asarray(LPS_TO_RAS @ affine, np.float64)
