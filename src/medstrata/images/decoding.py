"""One image from its files to rows of ``pixels.npy``: what a worker process does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.errors import FileProblem
from medstrata.images import grid, intensity
from medstrata.images.borders import content_axes
from medstrata.images.pixel_file import PixelFile
from medstrata.images.readers import read_pixels
from medstrata.images.records import FloatArray, FrameSource, Pixels
from medstrata.images.selection import LeftOut
from medstrata.images.sources import Source


@dataclass(frozen=True, slots=True)
class Setup:
    """What is the same for all images of a plan."""

    dimensions: int
    grid: tuple[int, ...]
    spacing: tuple[float, ...] | None
    channels: int
    crop_to_content: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One image to decode, normalise, bring onto the grid and write at ``row`` of ``file``."""

    source: Source
    image_id: str
    format: str
    frames: tuple[FrameSource, ...]
    slices: tuple[int, ...] | None  # slices of the stack that enter; None: the image as a whole
    stored: tuple[int, int, int]  # slices, rows and columns of the whole image, as the catalog says
    rule: intensity.Rule
    setup: Setup
    file: PixelFile
    row: int

    @property
    def rows(self) -> int:
        """Number of rows this image takes in the file."""
        return 1 if self.slices is None else len(self.slices)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What is known of a decoded image: its rows of ``images.parquet``. Its pixels are in the file."""

    image_id: str
    row: int
    slices: tuple[int, ...] | None
    source_shape: list[int]
    source_affine: list[float] | None = None
    grid_affine: list[float] | None = None
    crop: list[float] | None = None
    units: str = "stored"
    decoder: str = ""
    note: str = ""

    @property
    def rows(self) -> int:
        """Number of rows this image takes in the file."""
        return 1 if self.slices is None else len(self.slices)


def left_out(job: Job, problem: FileProblem) -> LeftOut:
    """Turn the problem of an image's file into its row of ``left_out.parquet``."""
    return LeftOut(job.image_id, "decode", problem.code, problem.sentence)


def decode_image(job: Job) -> Decoded | LeftOut:
    """Do one job. A problem of its files is returned as ``LeftOut``; of INPUT or the disk it is raised.

    Raises
    ------
    InputError : INPUT is no longer reachable
    OSError : the disk is full
    """
    try:
        pixels = read_pixels(job.source, job.format, job.frames, job.slices)
        block, decoded = place(pixels, job)
    except FileProblem as problem:
        return left_out(job, problem)
    except MemoryError:
        return left_out(job, FileProblem("too_large", "The image does not fit into memory."))
    job.file.write(job.row, block)
    return decoded


def place(pixels: Pixels, job: Job) -> tuple[NDArray[Any], Decoded]:
    """Return the rows ``(n, C, *grid)`` of one image as they are stored, and their description.

    Raises
    ------
    FileProblem : pixels are not finite, or are not what the headers promised (``not_a_volume``, ``slice_count``)
    """
    setup = job.setup
    values = intensity.to_channels(intensity.normalise(pixels, job.rule), setup.channels)
    affine = None if pixels.affine is None else np.asarray(pixels.affine, dtype=np.float64)
    grid_affine = crop = None
    if setup.dimensions == 3:
        if values.ndim != 4:
            raise FileProblem("not_a_volume", "The file holds a single image where a stack of slices was expected.")
        volume, grid_affine = grid.to_grid_3d(values, setup.grid, setup.spacing, affine, pixels.spacing)
        block = volume[None]
    else:
        images = np.moveaxis(values, 1, 0) if values.ndim == 4 else values[None]
        if len(images) != job.rows:
            raise FileProblem("slice_count", f"{job.rows} slices were expected, but {len(images)} were read.")
        block, crop = _place_2d(images, setup, None if pixels.spacing is None else pixels.spacing[-2:], affine)
    decoded = Decoded(
        image_id=job.image_id,
        row=job.row,
        slices=job.slices,
        source_shape=_source_shape(values.shape[1:], job),
        source_affine=_as_list(affine),
        grid_affine=_as_list(grid_affine),
        crop=crop,
        units=pixels.units,
        decoder=pixels.decoder,
        note=" ".join(pixels.notes),
    )
    return quantise(block, job.file.dtype), decoded


def _place_2d(
    images: FloatArray, setup: Setup, spacing: Sequence[float] | None, affine: NDArray[np.float64] | None
) -> tuple[FloatArray, list[float]]:
    if setup.crop_to_content:
        return grid.place_2d(images, content_axes(images, setup.grid), affine)
    return grid.to_grid_2d(images, setup.grid, setup.spacing, spacing, affine)


def _source_shape(decoded: tuple[int, ...], job: Job) -> list[int]:
    """Shape of the whole source, also where only some of its slices were decoded."""
    return [job.stored[0], *decoded[1:]] if job.slices is not None else list(decoded)


def _as_list(matrix: NDArray[np.float64] | None) -> list[float] | None:
    return None if matrix is None else [float(value) for value in matrix.ravel()]


def quantise(block: FloatArray, dtype: str) -> NDArray[Any]:
    """Return ``round(block * largest)`` for values in [0, 1] as ``"uint8"`` (largest 255) or ``"uint16"`` (65535)."""
    scaled = block * np.float32(np.iinfo(dtype).max)
    np.rint(scaled, out=scaled)
    return scaled.astype(dtype)
