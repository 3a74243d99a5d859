"""Small pictures of images, mean images and activation maps, cut from ``pixels.npy`` and ``maps/`` as data URIs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from medstrata.evidence.maps.write import grey_or_colour, overlay, resized, to_bytes
from medstrata.report.figures import data_uri
from medstrata.report.folder import RunFolder

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]
Window = tuple[float, float]

THUMBNAIL, LARGE = 112, 168  # longest side in pixels
AVERAGED_IMAGES, AVERAGED_PIXELS = 500, 4_000_000  # read for a mean image: a million images cost no more than hundreds


@dataclass(frozen=True)
class Picture:
    """One picture as a data URI with what it shows."""

    label: str
    uri: str


@dataclass(frozen=True)
class MapPictures:
    """Mean of a cluster and its mean map over it, plane by plane; ``strength``: its peak against the strongest of all
    mean maps; ``averaged``: how many images the mean map is of."""

    means: list[Picture]
    overlays: list[Picture]
    strength: float
    averaged: int


class Pictures:
    """Cuts pictures for members of ``assignments`` (numbered by row) out of a run."""

    def __init__(self, run: RunFolder) -> None:
        self._pixels = np.asarray(run.pixels)  # still mapped, without the cost of a memmap object per image
        self._maps = run.maps
        self.volumes = run.pixels.ndim == 5
        self._oriented = self.volumes and run.images["grid_affine"].null_count == 0
        self._steps = _grid_steps(run)
        self._order, self._starts = _rows_by_member(run)
        self._map_of: dict[int, int] = {}
        self._averaged: dict[int, int] = {}
        if run.maps is not None:
            found = pc.index_in(run.maps.index["image_id"], value_set=run.assignments["image_id"].combine_chunks())
            self._map_of = {member: place for place, member in enumerate(found.to_pylist()) if member is not None}
            self._map_rows: list[int] = run.maps.index["row"].to_pylist()
            self._map_peaks: list[list[int]] = run.maps.index["peak_index"].to_pylist()
            strongest = float(np.max(run.maps.cluster_maps, initial=0.0))
            self._strongest = strongest if strongest > 0 else 1.0
            entries = run.maps.summary.get("clusters", [])
            self._averaged = {entry["cluster"]: entry["averaged"] for entry in entries if "averaged" in entry}

    @property
    def explained_members(self) -> list[int]:
        """Members that have a map of their own."""
        return list(self._map_of)

    def _row(self, member: int) -> int:
        """Row of ``pixels`` that stands for an image: the explained one, else the middle one of its slices."""
        if member in self._map_of:
            return self._map_rows[self._map_of[member]]
        rows = self._order[self._starts[member] : self._starts[member + 1]]
        return int(rows[len(rows) // 2])

    def _sample(self, members: Rows) -> Floats:
        """Pixels (n, C, ...) of evenly spread members, at most so many as are averaged."""
        most = max(1, min(AVERAGED_IMAGES, AVERAGED_PIXELS // int(np.prod(self._pixels.shape[1:]))))
        chosen = members[np.unique(np.linspace(0, len(members) - 1, min(most, len(members))).astype(int))]
        return np.stack([self._pixels[self._row(int(member))] for member in chosen]).astype(np.float32)

    def window(self, members: Rows) -> Window:
        """One range of values for all pictures of a cluster, so that they can be compared."""
        sample = self._sample(members)
        low, high = np.percentile(sample[:: max(1, len(sample) // 24)], (0.5, 99.5))
        return float(low), float(high) if high > low else float(low) + 1.0

    def thumbnail(self, member: int, window: Window) -> list[Picture]:
        """Return the image itself, or the axial and coronal slices of a volume through the peak of its map."""
        image = np.asarray(self._pixels[self._row(member)], dtype=np.float32)
        peak = self._map_peaks[self._map_of[member]] if member in self._map_of else None
        planes = self._planes(image, peak)[:2]
        return [Picture(label, self._plain(_grey(plane, window), axes, THUMBNAIL)) for label, plane, axes in planes]

    def explained(self, member: int, window: Window) -> list[Picture]:
        """Return an image beside its own map over it, or the map over the planes of a volume; nothing without a map."""
        if self._maps is None or member not in self._map_of:
            return []
        place = self._map_of[member]
        peak = self._map_peaks[place]
        image = self._planes(np.asarray(self._pixels[self._map_rows[place]], dtype=np.float32), peak)
        heat = np.nan_to_num(np.asarray(self._maps.maps[place], dtype=np.float32)).clip(0)  # what speaks for it
        heats = self._planes(heat[None], peak)  # in the scale that all maps share
        pictures = []
        if not self.volumes:
            pictures.append(Picture("One typical image", self._plain(_grey(image[0][1], window), (0, 1), LARGE)))
        for (label, plane, axes), (_, heat_plane, _) in zip(image, heats, strict=True):
            words = f"One volume, {label.lower()}" if self.volumes else "What mattered in it"
            pictures.append(Picture(words, self._mapped(_grey(plane, window), heat_plane[0], axes)))
        return pictures

    def cluster(self, number: int, members: Rows, window: Window) -> MapPictures:
        """Return the mean image of a cluster and its mean map over it (none where no map was made)."""
        mean = self._sample(members).mean(axis=0)
        heat = self._cluster_map(number)
        peak = list(np.unravel_index(int(heat.argmax()), heat.shape)) if heat is not None else None
        means, overlays = [], []
        for index, (label, plane, axes) in enumerate(self._planes(mean, peak)):
            grey = _grey(plane, window)
            means.append(Picture(label, self._plain(grey, axes, LARGE)))
            if heat is not None:
                heat_plane = self._planes(heat[None], peak)[index][1][0]
                overlays.append(Picture(label, self._mapped(grey, heat_plane / self._strongest, axes)))
        strength = float(heat.max()) / self._strongest if heat is not None else 0.0
        averaged = self._averaged.get(number, len(members))
        return MapPictures(means, overlays, strength, averaged)

    def _cluster_map(self, number: int) -> Floats | None:
        if self._maps is None or not 0 <= number < len(self._maps.cluster_maps):
            return None
        heat = np.nan_to_num(np.asarray(self._maps.cluster_maps[number], dtype=np.float32))
        return heat if heat.max() > 0 else None

    def _planes(self, image: Floats, at: Sequence[Any] | None) -> list[tuple[str, Floats, tuple[int, int]]]:
        """Cut (C, H, W) or the three planes of (C, D, H, W) through ``at``: label, (C, rows, columns), spatial axes.

        The grid's axes run towards superior, posterior and left, so rows of D are turned to show the head on top and
        the patient's right on the left of the picture.
        """
        if not self.volumes:
            return [("", image, (0, 1))]
        d, h, w = (int(i) for i in at) if at is not None else (size // 2 for size in image.shape[1:])
        names = ("Axial", "Coronal", "Sagittal") if self._oriented else ("Plane 1", "Plane 2", "Plane 3")
        return [
            (names[0], image[:, d], (1, 2)),
            (names[1], image[:, ::-1, h], (0, 2)),
            (names[2], image[:, ::-1, :, w], (0, 1)),
        ]

    def _plain(self, grey: NDArray[np.uint8], axes: tuple[int, int], longest: int) -> str:
        return _jpeg(grey, self._shown(grey, axes, longest))

    def _mapped(self, grey: NDArray[np.uint8], heat: Floats, axes: tuple[int, int]) -> str:
        size = self._shown(grey, axes, LARGE)
        return _jpeg(_overlaid(grey, heat, size), size)

    def _shown(self, grey: NDArray[np.uint8], axes: tuple[int, int], longest: int) -> tuple[int, int]:
        return _size(grey.shape, [self._steps[axis] for axis in axes], longest)


def _grid_steps(run: RunFolder) -> tuple[float, ...]:
    """Millimetres per grid step, or equal steps where every image was scaled to fill the grid."""
    spacing = run.plan.get("spacing")
    return tuple(float(step) for step in spacing) if spacing else (1.0,) * (run.pixels.ndim - 2)


def _rows_by_member(run: RunFolder) -> tuple[Rows, Rows]:
    """Return pixel rows sorted by member, and where the rows of each member start."""
    ids = run.assignments["image_id"].combine_chunks()
    members = pc.fill_null(pc.index_in(run.images["image_id"], value_set=ids), -1).to_numpy()
    order = np.argsort(members, kind="stable")
    return order, np.searchsorted(members[order], np.arange(len(ids) + 1))


def _grey(plane: Floats, window: Window) -> NDArray[np.uint8]:
    """Map (C, rows, columns) through a window to 8 bits: (rows, columns), or (rows, columns, 3) for colour."""
    low, high = window
    scaled = (np.clip((plane - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(scaled, 0, -1) if len(scaled) == 3 else scaled[0])


def _size(shape: Sequence[int], steps: Sequence[float], longest: int) -> tuple[int, int]:
    """Rows and columns of a picture with square pixels whose longest side is ``longest``."""
    height, width = (size * step for size, step in zip(shape, steps, strict=False))
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _overlaid(grey: NDArray[np.uint8], heat: Floats, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a picture and its map (rows, columns) in 0..1, then lay the map over it."""
    plain = grey_or_colour(np.moveaxis(grey, -1, 0) / 255 if grey.ndim == 3 else grey[None] / 255)
    return to_bytes(overlay(resized(plain, size), resized(np.ascontiguousarray(heat), size)))


def _jpeg(picture: NDArray[np.uint8], size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "jpeg")


def colour_bar() -> str:
    """Return the colours of the maps from weak to strong over dark grey as a PNG data URI; the line stands at half."""
    strength = np.repeat(np.linspace(0, 1, 160, dtype=np.float32)[None], 9, axis=0)
    strip = overlay(np.full((9, 160, 3), 0.25, dtype=np.float32), strength)
    buffer = io.BytesIO()
    Image.fromarray(to_bytes(strip)).save(buffer, "PNG")
    return data_uri(buffer.getvalue(), "png")
