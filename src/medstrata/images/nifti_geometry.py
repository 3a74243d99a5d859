"""Where a NIfTI volume lies in the patient: from sform or qform, or not at all.

A form counts when its code is above 0 and its matrix can be inverted; sform goes before qform, as in nibabel. Without
one only the voxel sizes are known and no orientation is made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medstrata.images.vocabulary import orientation_name

MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # by the unit code of xyzt_units; unknown is taken as mm
DISAGREEMENT_MM = 1.0  # between sform and qform, at the corners of the volume
DISAGREEMENT_DEGREES = 1.0  # between the directions of their axes
SHEAR_DEGREES = 1.0  # from right angles between axes

_ARRAY_ORDER = (2, 1, 0, 3)  # columns of an (x, y, z, 1) affine in (d, h, w, 1) order


@dataclass(frozen=True, slots=True)
class Geometry:
    """``affine``: (4, 4) from ``(d, h, w, 1)`` to RAS mm, or None. ``spacing``: mm along D, H, W."""

    affine: NDArray[np.float64] | None
    spacing: tuple[float | None, float | None, float | None]
    notes: tuple[str, ...]


def geometry_of(header: Any, shape: tuple[int, int, int]) -> Geometry:
    """Return the geometry of a nibabel NIfTI header for a volume of ``shape`` (X, Y, Z)."""
    unit = MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    notes: list[str] = []
    forms = [form for form in (_form(header, "sform", notes), _form(header, "qform", notes)) if form is not None]
    forms = [np.diag([unit, unit, unit, 1.0]) @ form for form in forms]
    if not forms:
        notes.append("The header gives no orientation.")
        return Geometry(None, _voxel_sizes(header, unit), tuple(notes))
    if len(forms) == 2:
        notes += _disagreement(forms[0], forms[1], shape)
    affine = forms[0][:, _ARRAY_ORDER]
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(np.triu((affine[:3, :3] / sizes).T @ (affine[:3, :3] / sizes), 1))
    if cosines.max() > np.sin(np.deg2rad(SHEAR_DEGREES)):
        notes.append("The axes of the volume are not at right angles.")
    return Geometry(affine, (float(sizes[0]), float(sizes[1]), float(sizes[2])), tuple(notes))


def orientation_of(affine: NDArray[np.float64] | None) -> str:
    """Name the plane of the slices: "axial", "coronal", "sagittal", "oblique", or "" without an affine."""
    if affine is None:
        return ""
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    return orientation_name((normal / np.linalg.norm(normal)).tolist())


def _form(header: Any, kind: str, notes: list[str]) -> NDArray[np.float64] | None:
    """Return the sform or qform as (4, 4), or None where it is absent or unusable."""
    if int(header[f"{kind}_code"]) <= 0:
        return None
    try:
        with np.errstate(all="ignore"):
            matrix = np.asarray(getattr(header, f"get_{kind}")(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        matrix = np.full((4, 4), np.nan)
    if np.isfinite(matrix).all():
        sizes = np.linalg.norm(matrix[:3, :3], axis=0)
        if sizes.min() > 0 and abs(np.linalg.det(matrix[:3, :3] / sizes)) > 1e-3:  # axes that do not span space
            return matrix
    notes.append(f"The {kind} in the header cannot be used.")
    return None


def _voxel_sizes(header: Any, unit: float) -> tuple[float | None, float | None, float | None]:
    sizes = [abs(float(size)) * unit for size in header["pixdim"][1:4]]
    x, y, z = (size if np.isfinite(size) and size > 0 else None for size in sizes)
    return z, y, x


def _disagreement(sform: NDArray[np.float64], qform: NDArray[np.float64], shape: tuple[int, int, int]) -> list[str]:
    corners = np.array([(*corner, 1) for corner in product(*((0, length - 1) for length in shape))], dtype=np.float64)
    distance = np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max()
    directions = [form[:3, :3] / np.linalg.norm(form[:3, :3], axis=0) for form in (sform, qform)]
    cosines = np.clip((directions[0] * directions[1]).sum(axis=0), -1, 1)
    angle = np.rad2deg(np.arccos(cosines)).max()
    if distance <= DISAGREEMENT_MM and angle <= DISAGREEMENT_DEGREES:
        return []
    return [f"sform and qform differ by up to {distance:.1f} mm and {angle:.1f} degrees; the sform is used."]
