"""Lesions inserted into real lung CT: patches of lung in 2-D or 3-D, in groups that differ in one thing or in two.

The CT is one patient in two reconstructions (``lung_ct_hu`` of ``$MEDSTRATA_DATA``), so that only the backgrounds are
real, not the variety of patients. What is fitted on comes from the right lung, what is tested on from the left lung,
mirrored: no anatomy stands in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from medstrata.simulation.anatomy import Array, Grid, blend, ellipsoid, smooth_field, soft

KERNELS = ("A0001_s2_kernelL", "A0001_s3_kernelB")
SPACING = (5.0, 1.68, 1.68)  # mm: slices, rows, columns
SHAPES = {2: (1, 40, 40), 3: (12, 40, 40)}  # 67 mm a side, 60 mm of slices
LUNG = 0.9  # smallest share of lung in a patch
METAL = 1000.0  # HU
OUTSIDE = -850.0  # HU, what is not lung becomes: the middle of lung, as after a lung mask
LOWEST, HIGHEST = -1024.0, 1000.0

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Inserted:
    """One kind of lesion: ``radius`` mm, ``hu``, ``texture``; ``place``: (row, column) mm from the patch's middle."""

    radius: float = 11.0
    hu: float = -100.0
    texture: str = "consolidation"  # or ground glass, honeycombing, nodules
    place: tuple[float, float] = (0.0, 0.0)


FACTORS: dict[str, tuple[Inserted | None, ...]] = {
    "none": (None,),
    "six kinds": (
        *(Inserted(hu=50, place=place) for place in ((-14, -14), (-14, 14), (14, -14), (14, 14))),
        Inserted(radius=6, hu=50),
        Inserted(radius=22, hu=50),
    ),
    "size": (Inserted(radius=6), Inserted(radius=11), Inserted(radius=18)),
    "location": (Inserted(place=(-14, -14)), Inserted(place=(-14, 14)), Inserted(place=(14, 0))),
    "intensity": (Inserted(hu=-600), Inserted(hu=-300), Inserted(hu=50)),
    "texture": (
        Inserted(radius=15, texture="ground glass"),
        Inserted(radius=15, hu=0),
        Inserted(radius=15, hu=-350, texture="honeycombing"),
        Inserted(radius=15, hu=0, texture="nodules"),
    ),
    "location and intensity": tuple(Inserted(hu=hu, place=place) for hu in (-500, 50) for place in ((-14, 0), (14, 0))),
}


@dataclass(frozen=True)
class Setting:
    """What is varied: ``factor`` (a key of ``FACTORS``), SD of added noise in HU, SD of a lesion's place in mm."""

    factor: str = "location"
    dimensions: int = 2
    count: int = 300
    noise: float = 0.0
    misregistration: float = 2.0
    distractor: bool = False


@dataclass(frozen=True)
class Patches:
    """``images`` (n, 1, \\*grid) int16 HU, ``lesions`` and ``distractors`` (n, \\*grid), ``groups`` (n,)."""

    images: NDArray[np.int16]
    lesions: Mask
    distractors: Mask
    groups: NDArray[np.int64]


@cache
def _lungs(data: Path) -> tuple[list[Array], Mask, Mask]:
    """Volumes (D, H, W) in HU, right and left half of the lungs without the tumour; W runs to the patient's left."""
    volumes, free = [], []
    for kernel in KERNELS:
        image: Any = nib.load(data / "lung_ct_hu" / f"{kernel}_ct.nii.gz")
        mask: Any = nib.load(data / "lung_ct_hu" / f"{kernel}_lungmask_tumourbox.nii.gz")
        volumes.append(_slices(np.asarray(image.dataobj, np.float32), image.affine))
        free.append(_slices(np.asarray(mask.dataobj), mask.affine))
    lung = (free[0] == 1) & (free[1] == 1)
    tumour = (free[0] > 1) | (free[1] > 1)
    lung &= ~(uniform_filter(tumour.astype(np.float32), (5, 25, 25)) > 0)
    middle = round(np.argwhere(lung)[:, 2].mean())
    right, left = lung.copy(), lung.copy()
    right[:, :, middle:], left[:, :, :middle] = False, False
    return volumes, right, left


def _slices(array: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """Turn an array of NIfTI so that its axes run to superior, posterior, left."""
    orientations: Any = nib.orientations  # nibabel has no types
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(("L", "P", "S")))
    turned: NDArray[Any] = np.ascontiguousarray(orientations.apply_orientation(array, turn).transpose(2, 1, 0))
    return turned


@cache
def _places(data: Path, side: str, shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """First corners (n, 3) of all patches of one lung that are mostly lung."""
    _, right, left = _lungs(data)
    lung = right if side == "right" else left
    share = uniform_filter(lung.astype(np.float32), shape, mode="constant")
    centres = np.argwhere(share >= LUNG)
    corners = centres - np.array(shape) // 2
    inside = (corners >= 0).all(1) & (corners + shape <= lung.shape).all(1)
    found: NDArray[np.int64] = corners[inside]
    return found


def distinct_places(data: Path, side: str, dimensions: int) -> int:
    """How many patches of one lung share no voxel, taken one after the other: the distinct backgrounds."""
    shape = np.array(SHAPES[dimensions])
    left = _places(data, side, SHAPES[dimensions])
    count = 0
    while len(left):
        left = left[(np.abs(left - left[0]) >= shape).any(1)]
        count += 1
    return count


def cut(data: Path, setting: Setting, side: str, seed: int) -> Patches:
    """Cut patches out of one lung ("right" or "left") and insert a lesion into each."""
    kinds, shape = FACTORS[setting.factor], SHAPES[setting.dimensions]
    volumes, right, left = _lungs(data)
    lung = right if side == "right" else left
    corners = _places(data, side, shape)
    rng = np.random.default_rng([seed, side == "left"])
    groups = rng.permutation(np.arange(setting.count) % len(kinds))
    images, lesions, distractors = [], [], []
    for group in groups:
        corner = corners[rng.integers(len(corners))]
        box = tuple(slice(int(at), int(at) + size) for at, size in zip(corner, shape, strict=True))
        patch, inside = volumes[rng.integers(len(volumes))][box].copy(), lung[box].copy()
        if side == "left":
            patch, inside = patch[:, :, ::-1].copy(), inside[:, :, ::-1].copy()
        patch[~inside] = OUTSIDE
        kind = kinds[group]
        lesion = insert(patch, inside, kind, setting, rng) if kind else np.zeros(patch.shape, np.bool_)
        metal = _metal(patch, rng) if setting.distractor else np.zeros_like(lesion)
        lesion &= ~metal  # what the metal covers is no lesion any more
        distractors.append(metal)
        patch += setting.noise * rng.standard_normal(patch.shape, dtype=np.float32)
        images.append(patch.clip(LOWEST, HIGHEST))
        lesions.append(lesion)
    return Patches(
        _flat(np.stack(images).round().astype(np.int16), setting)[:, None],
        _flat(np.stack(lesions), setting),
        _flat(np.stack(distractors), setting),
        groups.astype(np.int64),
    )


def _flat(volumes: NDArray[Any], setting: Setting) -> NDArray[Any]:
    return volumes[:, 0] if setting.dimensions == 2 else volumes


def _grid(shape: Sequence[int]) -> Grid:
    z, y, x = (
        ((np.arange(size) - (size - 1) / 2) * step).astype(np.float32)
        for size, step in zip(shape, SPACING, strict=True)
    )
    return Grid(z[:, None, None], y[None, :, None], x[None, None, :], edge=SPACING[1])


def insert(patch: Array, lung: Mask, kind: Inserted, setting: Setting, rng: np.random.Generator) -> Mask:
    """Paint one lesion into the lung of ``patch`` (D, H, W) HU, in place; return the voxels that changed."""
    grid = _grid(patch.shape)
    moved = rng.normal(0, setting.misregistration, 3)
    centre = (kind.place[1] + moved[0], kind.place[0] + moved[1], moved[2] if patch.shape[0] > 1 else 0.0)
    if kind.texture == "nodules":
        share = np.zeros(patch.shape, np.float32)
        for _ in range(8):
            at = rng.normal(0, kind.radius / 2, 3) + centre
            place = (float(at[0]), float(at[1]), float(at[2]) if patch.shape[0] > 1 else 0.0)
            np.maximum(share, soft(ellipsoid(grid, place, (3.5, 3.5, 3.5)), grid.edge), out=share)
    else:
        radius = kind.radius * float(np.clip(rng.normal(1, 0.1), 0.8, 1.2))
        lumps = 0.15 * radius * smooth_field(rng, grid, max(radius, 6.0))
        share = soft(ellipsoid(grid, centre, (radius, radius, radius)) + lumps, grid.edge)
    share *= lung
    share[share < 0.25] = 0
    blend(patch, share, _texture(patch, kind, grid, rng))
    return share > 0


def _texture(patch: Array, kind: Inserted, grid: Grid, rng: np.random.Generator) -> NDArray[np.floating]:
    if kind.texture == "ground glass":  # vessels stay visible
        hazy: NDArray[np.floating] = np.minimum(patch + 300, 100)
        return hazy
    if kind.texture == "honeycombing":
        cells: NDArray[np.floating] = kind.hu + 450 * np.tanh(2 * smooth_field(rng, grid, 9))
        return cells
    solid: NDArray[np.floating] = kind.hu + 20 * smooth_field(rng, grid, 6)
    return solid


def _metal(patch: Array, rng: np.random.Generator) -> Mask:
    """Paint a small metal object at a random place."""
    grid = _grid(patch.shape)
    x, y = rng.uniform(-26, 26, 2)
    z = rng.uniform(-20, 20) if patch.shape[0] > 1 else 0.0
    share = soft(ellipsoid(grid, (float(x), float(y), float(z)), (4.0, 4.0, 6.0)), grid.edge)
    share[share < 0.25] = 0
    blend(patch, share, METAL)
    return share > 0
