"""Rows of ``.npy`` and ``.npz`` arrays to rows of ``pixels.npy``, many at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.errors import FileProblem
from medstrata.images import array, grid, intensity
from medstrata.images.decoding import Decoded, Job, left_out, quantise
from medstrata.images.records import FloatArray
from medstrata.images.selection import LeftOut

BLOCK_BYTES = 8 * 2**20  # float32 pixels that are worked on at once: about what a processor's cache holds


def decode_arrays(jobs: Sequence[Job]) -> Iterator[tuple[Job, Decoded | LeftOut]]:
    """Do the jobs of images that are rows of arrays, in this process: an array is opened once.

    Raises
    ------
    InputError : INPUT is no longer reachable
    OSError : the disk is full
    """
    for block in _blocks(jobs):
        try:
            rows = _rows(block)
        except FileProblem as problem:
            yield from ((job, left_out(job, problem)) for job in block)
            continue
        yield from zip(block, _decode(rows, block), strict=True)


def _blocks(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Cut the jobs into runs of one file, one rule and neighbouring rows of ``pixels.npy``, of bounded size."""
    block: list[Job] = []
    for job in jobs:
        if block and not (_belongs(job, block[-1]) and len(block) < _images_per_block(job)):
            yield block
            block = []
        block.append(job)
    if block:
        yield block


def _belongs(job: Job, last: Job) -> bool:
    same = (job.frames[0].file, job.slices, job.rule) == (last.frames[0].file, last.slices, last.rule)
    return same and job.row == last.row + last.rows


def _images_per_block(job: Job) -> int:
    pixels = max(math.prod(job.stored), job.rows * math.prod(job.file.row_shape))
    return max(1, BLOCK_BYTES // (4 * pixels))


def _rows(block: list[Job]) -> NDArray[Any]:
    """Return the stored values ``(n, C, H, W)`` or ``(n, C, D, H, W)`` of the block's images."""
    first = block[0]
    rows = array.load_rows(first.source, first.frames[0].file, [job.frames[0].frame for job in block])
    return rows if first.slices is None else rows[:, :, list(first.slices)]


def _decode(rows: NDArray[Any], block: list[Job]) -> Iterator[Decoded | LeftOut]:
    first = block[0]
    setup = first.setup
    finite = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    values = np.where(finite.reshape(-1, *[1] * (rows.ndim - 1)), rows, 0) if not finite.all() else rows
    scaled = _channels(_scale(values, first.rule), setup.channels)
    crop = None
    if setup.dimensions == 3:
        shape = scaled.shape[2:]
        placed = grid.resample(scaled, grid.centred_axes(shape, setup.grid, setup.spacing, None))
    else:
        images = np.moveaxis(scaled, 2, 1) if scaled.ndim == 5 else scaled
        placed, crop = grid.to_grid_2d(images, setup.grid, setup.spacing)
    first.file.write(first.row, quantise(placed, first.file.dtype).reshape(-1, *first.file.row_shape))
    source_shape = list(first.stored if rows.ndim == 5 else first.stored[1:])
    for job, is_finite in zip(block, finite, strict=True):
        if is_finite:
            yield Decoded(job.image_id, job.row, job.slices, source_shape, decoder=array.DECODER, crop=crop)
        else:
            yield left_out(
                job, FileProblem("not_finite", "The image holds values that are not finite (NaN or infinite).")
            )


def _scale(rows: NDArray[Any], rule: intensity.Rule) -> FloatArray:
    """Scale each image by ``rule``; at once where its bounds do not depend on the image."""
    if rule["rule"] == "range" and None not in (rule["low"], rule["high"]):
        return intensity.scale(rows, rule["low"], rule["high"])
    return np.stack([intensity.scale(image, *intensity.bounds(image, rule)[:2]) for image in rows])


def _channels(rows: FloatArray, channels: int) -> FloatArray:
    return np.moveaxis(intensity.to_channels(np.moveaxis(rows, 1, 0), channels), 0, 1)
