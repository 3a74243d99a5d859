"""One simulated patient: a lung CT with planted abnormalities of which every voxel is known.

The anatomy is in ``anatomy.py``. Here are the abnormalities, an object that means nothing (the distractor, to test
maps that light up on whatever is bright) and the scanner's noise. The four draw from random streams of their own: the
same patient with and without an abnormality differs in the abnormality's voxels and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medstrata.errors import PlanError
from medstrata.simulation.anatomy import (
    BLOOD,
    Array,
    Grid,
    Lungs,
    Point,
    blend,
    ellipsoid,
    patient_grid,
    smooth_field,
    soft,
    torso,
    vessel_tree,
)

SHAPE = (48, 96, 96)
SPACING = (6.0, 3.5, 3.5)
NOISE = 25.0
MISREGISTRATION = 0.5
DISTRACTOR_HU = 2500.0
LOWEST_HU, HIGHEST_HU = -1024, 3071
TEXTURES = ("hazy", "solid", "honeycomb")


@dataclass(frozen=True)
class Place:
    """A part of the lungs. Heights are 0 at the lung's base and 1 at its top, ``back`` 0 in front and 1 at the back,
    ``depth`` mm below the lung's surface.
    """

    sides: tuple[str, ...] = ("right", "left")
    height: tuple[float, float] = (0.0, 1.0)
    back: tuple[float, float] = (0.0, 1.0)
    depth: tuple[float, float] = (0.0, 1000.0)


PLACES = {
    "anywhere": Place(),
    "lower lobes": Place(height=(0.15, 0.4), back=(0.5, 0.9)),
    "upper lobes": Place(height=(0.6, 0.9)),
    "right upper lobe": Place(sides=("right",), height=(0.6, 0.85)),
    "left periphery": Place(sides=("left",), height=(0.25, 0.75), depth=(4.0, 16.0)),
}


@dataclass(frozen=True)
class Lesion:
    """One kind of abnormality of a patient.

    Attributes
    ----------
    place : a key of ``PLACES``: where the centres lie; several lesions alternate between the place's sides
    radius : mm, mean radius of one lesion; single lesions vary by 10 % (SD)
    intensity : HU; a honeycomb alternates 350 HU above and below it
    count : number of lesions
    texture : "hazy" (vessels stay visible), "solid" (covers them) or "honeycomb"
    """

    place: str
    radius: float
    intensity: float
    count: int = 1
    texture: str = "solid"

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise PlanError(f"There is no place {self.place!r} in the phantom. Choose one of: {', '.join(PLACES)}.")
        if self.texture not in TEXTURES:
            raise PlanError(f"There is no texture {self.texture!r}. Choose one of: {', '.join(TEXTURES)}.")
        if self.radius <= 0 or self.count < 1:
            raise PlanError("A lesion needs a radius above 0 mm and a count of at least 1. Change its definition.")


@dataclass(frozen=True)
class Phantom:
    """One simulated patient on the grid (D, H, W): D towards the head, H towards the back, W towards the left.

    ``volume`` is float32 in HU; ``lesion`` (every voxel that an abnormality changed), ``distractor`` and ``lungs``
    are bool.
    """

    volume: Array
    lesion: NDArray[np.bool_]
    distractor: NDArray[np.bool_]
    lungs: NDArray[np.bool_]


def make_phantom(
    lesions: Sequence[Lesion],
    rng: np.random.Generator,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
    noise: float = NOISE,
    distractor: bool = False,
    misregistration: float = MISREGISTRATION,
) -> Phantom:
    """Return one new patient with these abnormalities.

    ``shape`` is (D, H, W) voxels of ``spacing`` mm; together they should span about 290 x 340 x 340 mm, a chest.
    ``noise`` is a standard deviation in HU, ``misregistration`` one in mm per axis. Every call advances ``rng``.

    Raises
    ------
    PlanError : the grid is so coarse that a lesion's place holds no voxel
    """
    body, planted, scanner, object_place = rng.spawn(4)
    grid = patient_grid(body, shape, spacing, misregistration)
    volume, lungs = torso(body, grid)
    vessels = vessel_tree(body, grid, lungs)
    lesion = np.zeros(shape, np.bool_)
    for one in lesions:
        if one.texture == "hazy":
            lesion |= _plant(volume, one, planted, grid, lungs)
    blend(volume, vessels, BLOOD)
    for one in lesions:
        if one.texture != "hazy":
            lesion |= _plant(volume, one, planted, grid, lungs)
    port = _distractor(volume, object_place, grid, lungs) if distractor else np.zeros(shape, np.bool_)
    volume += _scanner_noise(scanner, shape, noise)
    np.clip(volume, LOWEST_HU, HIGHEST_HU, out=volume)
    return Phantom(volume, lesion, port, lungs.cover > 0.5)


def phantom_volume(
    lesions: Sequence[Lesion],
    rng: np.random.Generator,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
    noise: float = NOISE,
) -> tuple[Array, NDArray[np.bool_]]:
    """Return volume (D, H, W) in HU and lesion mask of one new patient; see ``make_phantom``."""
    phantom = make_phantom(lesions, rng, shape, spacing, noise)
    return phantom.volume, phantom.lesion


def _plant(volume: Array, lesion: Lesion, rng: np.random.Generator, grid: Grid, lungs: Lungs) -> NDArray[np.bool_]:
    """Paint the lesions of one kind into ``volume``; return the voxels that changed."""
    share = np.zeros(volume.shape, np.float32)
    for centre in _centres(lesion, rng, grid, lungs):
        radius = lesion.radius * float(np.clip(rng.normal(1, 0.1), 0.7, 1.3))
        a, b, c = (radius * np.exp(rng.normal(0, 0.1, 3))).tolist()
        reach = 2 * max(a, b, c)
        x, y, z = centre
        where, near = grid.box((x - reach, y - reach, z - reach), (x + reach, y + reach, z + reach))
        lumps = 0.2 * radius * smooth_field(rng, near, max(radius, 3 * grid.edge))
        ball = ellipsoid(near, centre, (a, b, c))
        np.maximum(share[where], soft(ball + lumps, grid.edge), out=share[where])
    share *= lungs.cover
    share[share < 0.25] = 0  # a voxel with a trace of lesion would be in the mask and look like lung
    blend(volume, share, _texture(lesion, rng, grid))
    return share > 0


def _texture(lesion: Lesion, rng: np.random.Generator, grid: Grid) -> float | NDArray[np.floating]:
    if lesion.texture == "hazy":
        patches: NDArray[np.floating] = lesion.intensity + 25 * np.clip(smooth_field(rng, grid, 15), -2, 2)
        return patches
    if lesion.texture == "honeycomb":
        cells: NDArray[np.floating] = lesion.intensity + 350 * np.tanh(2 * smooth_field(rng, grid, 14))
        return cells
    return lesion.intensity


def _centres(lesion: Lesion, rng: np.random.Generator, grid: Grid, lungs: Lungs) -> list[Point]:
    """Return (x, y, z) of the lesions' centres in the lesion's place, away from each other."""
    place = PLACES[lesion.place]
    order = [place.sides[i % len(place.sides)] for i in range(lesion.count)]
    centres: list[Point] = []
    for side in order:
        candidates = _candidates(place, side, lesion.radius, grid, lungs)
        if not len(candidates):
            raise PlanError(
                f"The grid is too coarse: no voxel lies in {lesion.place!r}. Use more voxels or a larger place."
            )
        drawn = candidates[rng.integers(len(candidates), size=6)]
        if centres:
            distance = np.linalg.norm(drawn[:, None] - np.array(centres), axis=2).min(axis=1)
            drawn = drawn[np.argsort(-distance)]
        x, y, z = drawn[0]
        centres.append((float(x), float(y), float(z)))
    return centres


def _candidates(place: Place, side: str, radius: float, grid: Grid, lungs: Lungs) -> NDArray[np.float64]:
    """Return the centres (n, 3) as (x, y, z) of the voxels of one lung that lie in ``place``."""
    d, h, w = np.nonzero((lungs.depth > 0) & ((grid.x < 0) if side == "right" else (grid.x > 0)))
    if not len(d):
        return np.empty((0, 3))
    x, y, z = grid.x.ravel()[w], grid.y.ravel()[h], grid.z.ravel()[d]
    depth = lungs.depth[d, h, w]
    height = (z - z.min()) / max(float(np.ptp(z)), 1e-6)
    back = (y - y.min()) / max(float(np.ptp(y)), 1e-6)
    inside = np.ones(len(d), np.bool_)
    for value, (low, high) in ((height, place.height), (back, place.back), (depth, place.depth)):
        inside &= (value >= low) & (value <= high)
    if inside.any():  # a lesion lies in the lung with most of itself, as far as its place allows
        inside &= depth >= min(0.7 * radius, float(np.quantile(depth[inside], 0.6)))
    return np.stack([x, y, z], axis=1)[inside].astype(np.float64)


def _distractor(volume: Array, rng: np.random.Generator, grid: Grid, lungs: Lungs) -> NDArray[np.bool_]:
    """Paint a metal object, flat as a pacemaker, at a random place of the chest wall; return its voxels."""
    places = np.argwhere((lungs.skin > 10) & (lungs.wall > 15) & (np.abs(grid.z) < 100))
    if not len(places):
        raise PlanError("The grid is too coarse: no voxel lies in the chest wall. Use more voxels.")
    d, h, w = places[rng.integers(len(places))]
    x, y, z = float(grid.x.ravel()[w]), float(grid.y.ravel()[h]), float(grid.z.ravel()[d])
    turn = float(np.degrees(np.arctan2(y, x))) + 90  # flat against the ribs
    share = soft(ellipsoid(grid, (x, y, z), (18.0, 7.0, 18.0), turn), grid.edge)
    share[share < 0.25] = 0
    blend(volume, share, DISTRACTOR_HU)
    return share > 0


def _scanner_noise(rng: np.random.Generator, shape: tuple[int, int, int], noise: float) -> Array:
    """Return noise of SD ``noise`` HU that neighbours within a slice share a little, as after a soft kernel."""
    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0, 0.6, 0.6), mode="wrap", truncate=3.5)
    scaled: Array = field * (noise / max(float(field.std()), 1e-6))
    return scaled
