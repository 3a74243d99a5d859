"""Maps as files and pictures: NIfTI on the source's voxels, overlays that leave the anatomy readable."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medstrata.run import atomic

Colours = NDArray[np.uint8]

DESCRIPTION = "medstrata cluster activation map, research use only"
SHORTEST_SHOWN, LONGEST_SHOWN = 256, 1024  # pixels of the longer side of one panel
STRONGEST_ALPHA = 0.6  # at full strength two fifths of the anatomy still show
DARKEST_COLOUR = 0.25  # where the colour map starts: its black end would only darken the anatomy
COLOUR_MAP = "inferno"  # even steps in lightness, readable with any colour blindness
CONTOUR = (0, 255, 255)  # cyan stands out from every colour of the map and from grey
GAP = 6  # white pixels between panels


def write_map_nifti(path: Path, map_on_source: NDArray[Any], source_affine: NDArray[Any]) -> None:
    """Write a map (D, H, W), values >= 0, with the source's affine (4, 4) from (d, h, w) to RAS mm as ``.nii.gz``.

    The file has the axes (W, H, D) of NIfTI, so that it lies voxel for voxel on the source. Values are stored in 255
    steps of the map's largest value with a scale factor, which keeps files of whole CT volumes small.
    """
    largest = float(map_on_source.max(initial=0.0))
    step = largest / 255 if largest > 0 else 1.0
    stored = np.empty(map_on_source.shape, dtype=np.uint8)
    for index, plane in enumerate(map_on_source):  # plane by plane: a whole CT in float32 need not be copied
        stored[index] = np.rint(plane / step)
    affine = np.asarray(source_affine, dtype=np.float64)[:, [2, 1, 0, 3]]
    new: Any = nib.Nifti1Image  # nibabel has no types
    image = new(stored.transpose(2, 1, 0), affine)
    image.header.set_data_dtype(np.uint8)
    image.header.set_slope_inter(step, 0.0)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = DESCRIPTION.encode("ascii")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    if not np.allclose(image.get_qform(), affine, atol=1e-3):  # a quaternion holds no shear; the sform does
        image.set_qform(None, code="unknown")
    with atomic(path) as part:  # compressed here: nibabel tells the format by the suffix, and ``part`` has none
        part.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def write_overlay_png(path: Path, image: NDArray[Any], activation: NDArray[Any]) -> None:
    """Write two panels side by side: the image (C, H, W) in 0..1, and the same under its map (H, W) in 0..1.

    Each panel has the image's aspect; its longer side is brought to between 256 and 1024 pixels.
    """
    plain, strength = grey_or_colour(image), np.asarray(activation, dtype=np.float32)
    size = shown_size(strength.shape)
    save_png(path, beside([resized(plain, size), overlay(resized(plain, size), resized(strength, size))]))


def shown_size(shape: Sequence[int], spacing: Sequence[float] | None = None) -> tuple[int, ...]:
    """Return how many pixels each axis is shown with: square pixels, the longest axis between 256 and 1024 pixels."""
    steps = [1.0] * len(shape) if spacing is None else [float(step) for step in spacing]
    lengths = [count * step / min(steps) for count, step in zip(shape, steps, strict=True)]
    factor = min(max(*lengths, SHORTEST_SHOWN), LONGEST_SHOWN) / max(lengths)
    return tuple(max(1, round(length * factor)) for length in lengths)


def grey_or_colour(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return an image (C, H, W) in 0..1 as (H, W, 3): colour for three channels, else the first channel in grey."""
    values = np.clip(np.asarray(image, dtype=np.float32), 0, 1)
    channels = values if len(values) == 3 else np.repeat(values[:1], 3, axis=0)
    return np.ascontiguousarray(channels.transpose(1, 2, 0))


def resized(values: NDArray[np.float32], size: Sequence[int]) -> NDArray[np.float32]:
    """Resize (H, W) or (H, W, 3) in 0..1 to ``size`` by cubic interpolation, cut to 0..1."""
    if values.ndim == 3:
        return np.stack([resized(plane, size) for plane in np.moveaxis(values, 2, 0)], axis=2)
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    larger = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(larger, dtype=np.float32).clip(0, 1)


def overlay(plain: NDArray[np.float32], strength: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay a map (H, W) over an image (H, W, 3), both in 0..1; returns (H, W, 3).

    The stronger the map, the more opaque its colour, by the square root, so that a tenth of the strongest still shows;
    where it is 0 the image is unchanged. A line encloses what reaches
    half of this map's own maximum, so that a weak map shows where it lies while its pale colour says that it is weak.
    """
    strength = np.clip(strength, 0, 1)
    shade = np.sqrt(strength)
    colour = matplotlib.colormaps[COLOUR_MAP](DARKEST_COLOUR + (1 - DARKEST_COLOUR) * shade)[..., :3]
    alpha = STRONGEST_ALPHA * shade[..., None]
    blended = (1 - alpha) * plain + alpha * colour
    if strength.max() > 0:
        blended[outline(strength >= strength.max() / 2)] = np.divide(CONTOUR, 255)
    return np.asarray(blended, dtype=np.float32)


def outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of ``inside`` (H, W) that touch a pixel outside it; the border of the picture is no outside."""
    padded = np.pad(inside, 1, mode="edge")
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~core


def beside(panels: Sequence[NDArray[np.float32]]) -> Colours:
    """Put pictures (rows, columns, 3) of one height in 0..1 side by side on white."""
    gap = np.ones((panels[0].shape[0], GAP, 3), dtype=np.float32)
    parts = [part for panel in panels for part in (gap, panel)][1:]
    return to_bytes(np.concatenate(parts, axis=1))


def to_bytes(values: NDArray[np.float32]) -> Colours:
    """0..1 to 0..255."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def save_png(path: Path, picture: Colours) -> None:
    """Write a picture (rows, columns, 3) with the note that it is for research use only, atomically."""
    notes = PngInfo()
    notes.add_text("Description", DESCRIPTION)
    with atomic(path) as part:
        Image.fromarray(picture).save(part, format="png", pnginfo=notes)
