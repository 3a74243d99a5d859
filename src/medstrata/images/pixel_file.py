"""``pixels.npy`` while it grows: many processes write rows into one file of full size, then unused rows are closed up.

Plain reads and writes, no memory map: a full disk is an error that can be reported, not a crash of the process.
"""

from __future__ import annotations

import io
import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from medstrata.errors import RunFolderError

MOVE_BYTES = 32 * 2**20  # rows are moved in pieces of about this size
SPARE_BYTES = 64 * 2**20  # left free on the disk for everything else in the run folder


@dataclass(frozen=True, slots=True)
class PixelFile:
    """A ``.npy`` file of ``rows`` rows of shape ``row_shape`` being written. Picklable."""

    path: Path
    rows: int
    row_shape: tuple[int, ...]
    dtype: str
    start: int  # bytes of the header

    @property
    def row_bytes(self) -> int:
        """Size of one row in the file."""
        return math.prod(self.row_shape) * np.dtype(self.dtype).itemsize

    def write(self, row: int, block: NDArray[Any]) -> None:
        """Write ``block`` ``(n, *row_shape)`` at ``row``; OSError where the disk is full."""
        if block.shape[1:] != self.row_shape or block.dtype != self.dtype or not 0 <= row <= self.rows - len(block):
            raise ValueError(f"a block {block.shape} {block.dtype} at {row} does not fit into {self}")
        content = np.ascontiguousarray(block).data.cast("B")
        # Not opened for reading, so that a network file system sends these bytes alone: others write beside them.
        file = os.open(self.path, os.O_WRONLY)
        try:
            place = self.start + row * self.row_bytes
            while content:
                written = os.pwrite(file, content, place)
                content, place = content[written:], place + written
        finally:
            os.close(file)

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        with open(self.path, "r+b") as file:
            os.fsync(file.fileno())

    def is_whole(self) -> bool:
        """Whether the file is there in full size."""
        return self.path.exists() and self.path.stat().st_size == self.start + self.rows * self.row_bytes

    def renamed(self, name: str) -> PixelFile:
        """Give the file another name in its folder: what still holds the old one can no longer write."""
        path = self.path.with_name(name)
        os.replace(self.path, path)
        return replace(self, path=path)

    def close_up(self, kept: NDArray[np.bool_]) -> None:
        """Move the kept rows to the front in their order and cut the file behind them; memory stays bounded."""
        runs = _runs(kept)
        size = self.row_bytes
        with open(self.path, "r+b") as file:
            target = 0
            for first, stop in runs:
                _move(file, self.start + first * size, self.start + target * size, (stop - first) * size)
                target += stop - first
            file.truncate(self.start + target * size)
            file.seek(0)
            if write_header(file, (target, *self.row_shape), self.dtype) != self.start:
                raise RuntimeError("the header of pixels.npy has changed its length")
            file.flush()
            os.fsync(file.fileno())


def create(path: Path, rows: int, row_shape: tuple[int, ...], dtype: str) -> PixelFile:
    """Create the file in full size (zeros) at ``path``.

    Raises
    ------
    RunFolderError : the disk does not have the room
    """
    file = described(path, rows, row_shape, dtype)
    needed = rows * file.row_bytes
    free = shutil.disk_usage(path.parent).free
    if needed + SPARE_BYTES > free:
        raise RunFolderError(
            f"The decoded images need {needed / 1e6:,.0f} MB and {SPARE_BYTES / 1e6:,.0f} MB to spare, but OUT has "
            f"only {free / 1e6:,.0f} MB free. Free some space, choose another OUT, or make 'grid' in plan.json smaller."
        )
    with open(path, "wb") as stream:
        write_header(stream, (rows, *row_shape), dtype)
        stream.truncate(file.start + needed)
    return file


def described(path: Path, rows: int, row_shape: tuple[int, ...], dtype: str) -> PixelFile:
    """Return what ``create`` returns, without making the file."""
    return PixelFile(path, rows, row_shape, dtype, write_header(io.BytesIO(), (rows, *row_shape), dtype))


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any] | str) -> int:
    """Write a version 1.0 header, which leaves room for any number of rows; return its length."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    )
    return file.tell()


def _runs(kept: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return ``(first, stop)`` of each run of kept rows."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


def _move(file: BinaryIO, source: int, target: int, count: int) -> None:
    """Copy ``count`` bytes towards the front; the ranges may overlap."""
    if source == target:
        return
    for done in range(0, count, MOVE_BYTES):
        file.seek(source + done)
        piece = file.read(min(MOVE_BYTES, count - done))
        file.seek(target + done)
        file.write(piece)
