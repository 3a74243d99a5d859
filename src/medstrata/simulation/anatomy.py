"""A chest in air: every voxel of a simulated, unenhanced CT of the thorax, without any abnormality.

Shapes are written in a standard body, in millimetres from its centre: x towards the patient's left, y towards the
back, z towards the head, which is also the order of the array axes ``(z, y, x)``. A patient is that body scaled,
shifted and grown anew. Edges are as soft as a voxel is wide, as partial volume makes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Point = tuple[float, float, float]  # (x, y, z) in mm of the standard body

AIR, LUNG, FAT, MUSCLE, BLOOD, LIVER = -1000.0, -860.0, -95.0, 48.0, 40.0, 58.0
DISC, CARTILAGE, MARROW, BONE = 80.0, 120.0, 200.0, 520.0
SIZE = 0.005  # standard deviation of a patient's size, relative, per axis
BREATH = 1.0  # standard deviation of the diaphragm's height in mm
VESSEL_ENDS = 80  # ends of one vessel tree in one lung; arteries and veins have a tree each
HILA: tuple[Point, Point] = ((-40.0, 18.0, 8.0), (44.0, 20.0, 6.0))  # right, left


@dataclass(frozen=True)
class Grid:
    """The voxel grid in mm of a patient's standard body: ``z`` (D, 1, 1), ``y`` (1, H, 1), ``x`` (1, 1, W)."""

    z: Array
    y: Array
    x: Array
    edge: float  # mm over which an edge is blurred

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        return self.z.size, self.y.size, self.x.size

    def box(self, low: Point, high: Point) -> tuple[tuple[slice, slice, slice], Grid]:
        """Return the part of the grid between two corners: its slices, and itself as a grid."""
        axes = (self.z, self.y, self.x)
        inner = tuple(
            slice(int(np.searchsorted(axis.ravel(), low[2 - i])), int(np.searchsorted(axis.ravel(), high[2 - i])))
            for i, axis in enumerate(axes)
        )
        d, h, w = inner
        return (d, h, w), Grid(self.z[d], self.y[:, h], self.x[:, :, w], self.edge)


@dataclass(frozen=True)
class Lungs:
    """Where the lungs are. ``cover`` (D, H, W) is the share of lung in a voxel, ``depth`` mm below the lung's surface
    (negative outside), ``wall`` mm outside the chest cavity, ``skin`` mm below the skin.
    """

    cover: Array
    depth: Array
    wall: Array
    skin: Array


def patient_grid(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float], misregistration: float
) -> Grid:
    """Return the grid of one patient: size varies by ``SIZE``, position by ``misregistration`` mm (SD).

    ``shape`` is (D, H, W), ``spacing`` the mm between voxel centres along the same axes.
    """
    scale = np.clip(rng.normal(1.0, SIZE, 3), 1 - 3 * SIZE, 1 + 3 * SIZE)
    shift = np.clip(rng.normal(0.0, 1.0, 3), -2.5, 2.5) * misregistration
    z, y, x = (
        (((np.arange(n) - (n - 1) / 2) * step - shift[i]) / scale[i]).astype(np.float32)
        for i, (n, step) in enumerate(zip(shape, spacing, strict=True))
    )
    return Grid(z[:, None, None], y[None, :, None], x[None, None, :], edge=float(np.mean(spacing)))


def soft(distance: NDArray[np.floating], edge: float) -> Array:
    """Return the share of a voxel that lies inside a surface at signed ``distance`` mm (negative inside)."""
    share: Array = np.clip(0.5 - distance * (1 / edge), 0, 1).astype(np.float32, copy=False)
    return share


def blend(volume: Array, cover: Array, value: float | NDArray[np.floating]) -> None:
    """Fill the share ``cover`` of each voxel of ``volume`` with ``value``, in place."""
    volume += cover * (value - volume)


def smooth_field(rng: np.random.Generator, grid: Grid, wavelength: float) -> Array:
    """Return a random field (D, H, W) of mean 0 and SD about 1 that varies over ``wavelength`` mm."""
    weights = []
    for axis in (grid.z.ravel(), grid.y.ravel(), grid.x.ravel()):
        knots = np.arange(axis[0] - wavelength, axis[-1] + 1.5 * wavelength, wavelength / 2, dtype=np.float32)
        bumps = np.exp(-0.5 * ((axis[:, None] - knots) / (wavelength / 3)) ** 2)
        weights.append(bumps / np.sqrt((bumps**2).sum(axis=1, keepdims=True)))
    field = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
    for axis_weights in weights:  # each product moves the axis it spans to the end: after three the order is as before
        field = np.tensordot(field, axis_weights, axes=(0, 1))
    return field


def ellipsoid(grid: Grid, centre: Point, radii: Point, turn: float = 0.0) -> Array:
    """Return the signed distance (about, in mm) to an ellipsoid turned by ``turn`` degrees about the z axis."""
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    x, y, z = grid.x - centre[0], grid.y - centre[1], grid.z - centre[2]
    u, v = c * x + s * y, c * y - s * x
    size = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (z / radii[2]) ** 2)
    return ((size - 1) * min(radii)).astype(np.float32, copy=False)


def paint_tube(cover: Array, grid: Grid, ends: tuple[Point, Point], radii: tuple[float, float]) -> None:
    """Raise ``cover`` (D, H, W) to the share of each voxel inside a tube that tapers from one end to the other."""
    (x0, y0, z0), (x1, y1, z1) = ends
    margin = max(radii) + grid.edge / 2
    where, near = grid.box(
        (min(x0, x1) - margin, min(y0, y1) - margin, min(z0, z1) - margin),
        (max(x0, x1) + margin, max(y0, y1) + margin, max(z0, z1) + margin),
    )
    a, b, c = x1 - x0, y1 - y0, z1 - z0
    length2 = max(a * a + b * b + c * c, 1e-6)
    x, y, z = near.x - x0, near.y - y0, near.z - z0
    t = np.clip(x * (a / length2) + y * (b / length2) + z * (c / length2), 0, 1)
    distance = np.sqrt((x - t * a) ** 2 + (y - t * b) ** 2 + (z - t * c) ** 2)
    radius = radii[0] + t * (radii[1] - radii[0])
    share = soft(distance - radius, grid.edge) * np.minimum(1, 2 * radius / grid.edge)
    np.maximum(cover[where], share, out=cover[where])


def tubes(grid: Grid, segments: list[tuple[Point, Point, float, float]]) -> Array:
    """Return the share of each voxel inside any of the tubes ``(start, stop, radius there, radius here)``."""
    cover = np.zeros(grid.shape, np.float32)
    for start, stop, first, last in segments:
        paint_tube(cover, grid, (start, stop), (first, last))
    return cover


def torso(rng: np.random.Generator, grid: Grid) -> tuple[Array, Lungs]:
    """Return the chest without lung vessels, in HU (D, H, W), and where its lungs are."""
    x, y, z = grid.x, grid.y, grid.z
    top = np.clip((z - 85) / 60, 0, 1) ** 2
    width, height = 153 * (1 - 0.14 * top), 113 * (1 - 0.2 * top)
    skin = ((np.abs(x) / width) ** 2.4 + (np.abs(y) / height) ** 2.4) ** np.float32(1 / 2.4)
    skin = ((1 - skin) * 113).astype(np.float32)
    fat_layer = max(4.0, float(rng.normal(11, 1.0))) + 2 * smooth_field(rng, grid, 120)
    profile = np.sqrt(np.maximum(1 - np.clip((z - 5) / 115, 0, 1) ** 2.4, 4e-3))
    size = np.sqrt((x / (121 * profile)) ** 2 + ((y - 3) / (83 * profile**0.7)) ** 2)
    wall = ((size - 1) * 83 * profile**0.7).astype(np.float32)

    volume = np.full(grid.shape, AIR, np.float32)
    blend(volume, soft(-skin, grid.edge), FAT)
    muscle = MUSCLE - 70 * np.clip(smooth_field(rng, grid, 30) - 1, 0, 1)
    blend(volume, soft(fat_layer - skin, grid.edge), muscle)
    blend(volume, soft(wall, grid.edge), FAT)
    dome, centre = _abdomen(rng, grid, volume, wall)
    centre = np.minimum(centre, _mediastinum(rng, grid, volume, dome, wall))
    _bones(rng, grid, volume, wall)
    depth = -np.maximum(np.maximum(wall, dome - 3), -centre).astype(np.float32)
    lungs = Lungs(soft(-depth, grid.edge), depth, wall, skin.astype(np.float32))
    gravity = 0.45 * np.clip(y, -80, 90)  # lungs are denser towards the back of a patient who lies on it
    blend(volume, lungs.cover, LUNG + gravity + 14 * smooth_field(rng, grid, 45))
    _airways(grid, volume)
    return volume, lungs


def _abdomen(rng: np.random.Generator, grid: Grid, volume: Array, wall: Array) -> tuple[Array, Array]:
    """Paint what lies below the diaphragm; return mm below the diaphragm and mm outside the spine."""
    breath = float(np.clip(rng.normal(0, BREATH), -2.5 * BREATH, 2.5 * BREATH))
    right = -58 + breath - 0.0085 * ((grid.x + 62) ** 2 + 0.8 * (grid.y + 12) ** 2)
    left = -70 + breath - 0.0085 * ((grid.x - 66) ** 2 + 0.8 * (grid.y + 8) ** 2)
    dome = ((np.maximum(right, left) - grid.z) * 0.75).astype(np.float32)
    below = soft(-dome, grid.edge) * soft(wall, grid.edge)
    organs = 45 + 15 * soft(grid.x - 25, grid.edge) - 70 * np.clip(smooth_field(rng, grid, 50) - 0.8, 0, 1)
    blend(volume, below, organs)
    stomach = ellipsoid(grid, (62, -22, -112 + breath), (34, 30, 24), 20)
    gas = soft(stomach, grid.edge) * soft(grid.y + 28, grid.edge) * soft(6 - dome, grid.edge)
    blend(volume, gas, AIR)
    return dome, ellipsoid(grid, (0, 68, 0), (24, 21, 1e4))


def _mediastinum(rng: np.random.Generator, grid: Grid, volume: Array, dome: Array, wall: Array) -> Array:
    """Paint heart and great vessels in fat; return mm outside of the mediastinum (negative inside)."""
    half_width = np.interp(grid.y, [-85, -50, -15, 25, 50, 90], [7, 20, 30, 30, 22, 20]).astype(np.float32)
    middle = np.abs(grid.x) - half_width * (1 - 0.25 * np.clip(grid.z / 120, -1, 1))
    heart = ellipsoid(grid, (20, -24, -44), (60 * float(rng.normal(1, 0.04)), 42, 45), 32)
    aorta = [
        ((22.0, 48.0, -160.0), (22.0, 46.0, 38.0), 12.0, 12.5),
        ((22.0, 46.0, 38.0), (6.0, 6.0, 54.0), 12.5, 13.5),
        ((6.0, 6.0, 54.0), (-14.0, -18.0, 36.0), 13.5, 14.5),
        ((-14.0, -18.0, 36.0), (-6.0, -22.0, -20.0), 14.5, 15.0),
    ]
    branches = [
        ((6.0, 4.0, 56.0), (-12.0, -8.0, 150.0), 7.0, 5.0),
        ((14.0, 18.0, 54.0), (24.0, 6.0, 150.0), 6.0, 5.0),
        ((-26.0, -8.0, 150.0), (-27.0, -8.0, -10.0), 7.5, 9.5),  # superior vena cava
        ((14.0, -26.0, -10.0), (12.0, -4.0, 22.0), 14.0, 13.0),  # pulmonary trunk and its two arteries
        ((12.0, -4.0, 22.0), HILA[0], 12.0, 8.0),
        ((12.0, -4.0, 22.0), HILA[1], 12.0, 8.0),
        ((-4.0, 44.0, -160.0), (-2.0, 42.0, 150.0), 6.0, 6.0),  # oesophagus
    ]
    vessels = tubes(grid, aorta + branches)
    inside = np.minimum(np.minimum(middle, heart), np.where(vessels > 0, (0.5 - vessels) * grid.edge, np.inf))
    above = soft(np.maximum(dome, wall), grid.edge)
    blend(volume, soft(middle, grid.edge) * above, FAT + 25 * np.clip(smooth_field(rng, grid, 25), -1, 2))
    blend(volume, soft(heart, grid.edge) * above, FAT + 20)  # fat around the heart, which is 4 mm smaller
    blend(volume, soft(heart + 4, grid.edge) * above, BLOOD)
    blend(volume, vessels, BLOOD)
    distance: Array = inside.astype(np.float32)
    return distance


def _bones(rng: np.random.Generator, grid: Grid, volume: Array, wall: Array) -> None:
    """Paint spine, ribs, breastbone, shoulder blades and collar bones."""
    x, y, z = grid.x, grid.y, grid.z
    phase = float(np.clip(rng.normal(0, 2.0), -5, 5))
    level = np.abs(np.mod(z - 0.42 * y + phase, 25) - 12.5)  # ribs slope down towards the front
    rib = ((np.sqrt(((wall - 7) / 4.5) ** 2 + (level / 5.5) ** 2) - 1) * 4.5).astype(np.float32)
    blend(volume, soft(rib, grid.edge), np.where(y > -48, BONE, CARTILAGE))
    vertebra = ellipsoid(grid, (0, 68, 0), (19, 15, 1e4))
    disc = np.abs(np.mod(z + phase, 25) - 12.5) > 9.5
    blend(volume, soft(vertebra, grid.edge), np.where(disc, DISC, BONE - 140))
    blend(volume, soft(vertebra + 5, grid.edge), np.where(disc, DISC, MARROW))
    lateral = np.where(np.mod(z + phase, 25) < 14, 30, 14)
    arch = np.minimum(ellipsoid(grid, (0, 92, 0), (15, 13, 1e4)), np.maximum(np.abs(x) - lateral, np.abs(y - 88) - 4))
    spinous = np.maximum(np.abs(x) - 3.5, np.abs(y - 103) - 9)
    blend(volume, soft(np.minimum(arch, spinous), grid.edge), BONE - 120)
    blend(volume, soft(ellipsoid(grid, (0, 91, 0), (9, 8, 1e4)), grid.edge), 25.0)
    blend(volume, soft(ellipsoid(grid, (0, -91, 12), (19, 6.5, 75)), grid.edge), MARROW + 80)
    for side in (-1, 1):
        blade = ellipsoid(grid, (side * 98, 70, 58), (36, 4.5, 58), -side * 36)
        blend(volume, soft(blade, grid.edge), BONE - 60)
    collar: list[tuple[Point, Point, float, float]] = [
        ((s * 14.0, -78.0, 92.0), (s * 112.0, -22.0, 122.0), 7.0, 6.0) for s in (-1, 1)
    ]
    blend(volume, tubes(grid, collar), BONE - 60)


def _airways(grid: Grid, volume: Array) -> None:
    """Paint trachea, main and lobar bronchi with their walls."""
    carina: Point = (0.0, 28.0, 36.0)
    paths: list[tuple[Point, Point, float, float]] = [
        ((0.0, 18.0, 160.0), carina, 8.5, 8.5),
        (carina, HILA[0], 7.0, 6.0),
        (carina, HILA[1], 6.5, 5.5),
    ]
    for side, hilum in zip((-1, 1), HILA, strict=True):
        for dx, dy, dz in ((16, -14, 28), (22, -22, -14), (16, 18, -32)):
            paths.append((hilum, (hilum[0] + side * dx, hilum[1] + dy, hilum[2] + dz), 4.5, 3.0))
    walls = [(start, stop, first + 1.6, last + 1.2) for start, stop, first, last in paths]
    blend(volume, tubes(grid, walls), 10.0)
    blend(volume, tubes(grid, paths), AIR + 10)


def vessel_tree(rng: np.random.Generator, grid: Grid, lungs: Lungs) -> Array:
    """Return the share of blood vessel in each voxel (D, H, W): arteries and veins grown from the hila.

    Random ends in the lung are halved again and again; each half gets a branch towards its middle, whose radius
    follows Murray's law (the cube of the radius is shared among the branches).
    """
    segments: list[tuple[Point, Point, float, float]] = []
    for side, hilum in zip((-1, 1), HILA, strict=True):
        inside = np.argwhere((lungs.depth > 3) & (side * grid.x > 0))
        if not len(inside):
            continue
        for offset in (-6.0, 7.0):
            ends = inside[rng.integers(len(inside), size=VESSEL_ENDS)]
            points = np.stack([grid.x.ravel()[ends[:, 2]], grid.y.ravel()[ends[:, 1]], grid.z.ravel()[ends[:, 0]]], 1)
            _grow(rng, np.add(hilum, (0, offset, offset)), points.astype(np.float64), segments)
    return tubes(grid, segments) * lungs.cover


def _grow(
    rng: np.random.Generator,
    start: NDArray[np.float64],
    ends: NDArray[np.float64],
    segments: list[tuple[Point, Point, float, float]],
) -> None:
    reach = rng.uniform(0.3, 0.5) if len(ends) > 1 else 1.0
    stop = start + reach * (ends.mean(axis=0) - start)
    radius = 7.5 * (len(ends) / VESSEL_ENDS) ** (1 / 3)
    taper = 0.85 if len(ends) > 1 else 0.5
    segments.append((_point(start), _point(stop), radius, radius * taper))
    if len(ends) == 1:
        return
    order = np.argsort(ends[:, int(np.argmax(ends.var(axis=0)))])
    middle = len(ends) // 2
    for half in (order[:middle], order[middle:]):
        _grow(rng, stop, ends[half], segments)


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = values.tolist()
    return x, y, z
