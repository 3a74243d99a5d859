"""NumPy arrays: ``.npy``, and ``.npz`` with the key ``images``.

What the axes of an array mean is told in ``array_layout``, whose patients' the images are in ``array_patients``. No
other key is ever read, so labels stay unseen. Of a ``.npy`` on disk only the rows asked for are read; an ``.npz`` is
compressed and must fit into memory. Objects (pickles) are refused.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from medstrata.errors import FileProblem
from medstrata.images.array_file import open_array
from medstrata.images.array_layout import Layout, layout_of
from medstrata.images.array_patients import read_patients
from medstrata.images.listing import Source
from medstrata.images.records import FrameSource, ImageRecord, Pixels

BLOCK_BYTES = 2**24  # read at once while the range of values is measured
DECODER = f"numpy {np.__version__}"


def read_headers(source: Source, name: str) -> list[ImageRecord]:
    """Return one record per row of an array; the range of values is that of the whole array, without NaN.

    Raises
    ------
    FileProblem : ``array_key``, ``array_shape``, ``array_patients``, ``data_type``, ``truncated``
    InputError : the array is INPUT itself and has no key ``images``; the message names the keys it has
    """
    with open_array(source, name) as stream:
        shape, _, dtype = _array_header(stream)
        layout = layout_of(shape)
        low, high = _value_range(stream, dtype, math.prod(shape))
    patients = read_patients(source, name, layout.images)
    volume = len(layout.spatial) == 3
    return [
        ImageRecord(
            unit="series" if volume else "image",
            format="array",
            frames=[FrameSource(name, row, patient_id=patient)],
            rows=layout.spatial[-2],
            columns=layout.spatial[-1],
            slices=layout.spatial[0] if volume else 1,
            channels=layout.channels,
            bits=1 if dtype.kind == "b" else dtype.itemsize * 8,
            geometry="none",
            photometric="RGB" if layout.channels == 3 else "MONOCHROME2",
            value_low=low,
            value_high=high,
        )
        for row, patient in enumerate(patients)
    ]


def read_pixels(source: Source, frames: Sequence[FrameSource], slices: Sequence[int] | None = None) -> Pixels:
    """Return one row as float32 ``(C, H, W)`` or ``(C, D, H, W)``; ``slices``: numbers along D.

    Many rows are read faster as blocks of ``load_rows``.

    Raises
    ------
    FileProblem : ``not_finite``, or a code of ``read_headers``
    """
    image = load_rows(source, frames[0].file, [frames[0].frame])[0]
    if slices is not None and image.ndim == 4:
        image = image[:, list(slices)]
    with np.errstate(over="ignore"):
        image = np.ascontiguousarray(image, dtype=np.float32)
    if not np.isfinite(image).all():
        raise FileProblem("not_finite", "The image holds values that are not finite (NaN or infinite).")
    return Pixels(image, decoder=DECODER)


def load_rows(source: Source, name: str, numbers: Sequence[int]) -> NDArray[Any]:
    """Return rows ``numbers`` of one array as ``(n, C, H, W)`` or ``(n, C, D, H, W)``, in its own type.

    A ``.npy`` on disk is read, not mapped: a drive that goes away is then an error that can be reported, where a map
    would kill the process. Only in Fortran order, in which a row is scattered over the file, it is mapped.

    Raises
    ------
    FileProblem : a code of ``read_headers``, ``file_changed``
    InputError : INPUT is gone
    """
    rows = None if source.local_path(name) is None else _read_rows(source, name, numbers)
    if rows is not None:
        return rows
    stored = load_array(source, name)
    _check_rows(numbers, len(stored))
    return stored[_run_of(numbers) or list(numbers)]


def load_array(source: Source, name: str) -> NDArray[Any]:
    """Return all images of one array as a read-only ``(N, C, H, W)`` or ``(N, C, D, H, W)`` view, in its own type.

    A ``.npy`` on disk is a memory map. Anything else is loaded once per process and kept until another array is asked
    for, so that rows can be read one by one.

    Raises
    ------
    FileProblem : a code of ``read_headers``
    InputError : INPUT is gone
    """
    try:
        status = (source.local_path(name) or source.path).stat()
        return _load(_Key(source, name), status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise source.explain(error) from None


class _Key:
    """A source and a name, equal where both mean the same file: every task of a worker brings its own Source."""

    def __init__(self, source: Source, name: str) -> None:
        self.source, self.name = source, name
        self.identity = (source.kind, source.path, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


@lru_cache(maxsize=1)
def _load(key: _Key, modified: int, size: int) -> NDArray[Any]:
    source, name = key.source, key.name
    path = source.local_path(name)
    with open_array(source, name) as stream:
        layout = layout_of(_array_header(stream)[0])
        stream.seek(0)
        if path is not None and not isinstance(stream, zipfile.ZipExtFile):
            array: NDArray[Any] = npy.open_memmap(path, mode="r")
        else:
            array = npy.read_array(stream, allow_pickle=False)
    array.flags.writeable = False
    return _channels_second(array, layout)


def _channels_second(array: NDArray[Any], layout: Layout) -> NDArray[Any]:
    return array[:, None] if layout.channel_axis is None else np.moveaxis(array, layout.channel_axis, 1)


def _read_rows(source: Source, name: str, numbers: Sequence[int]) -> NDArray[Any] | None:
    """Do the work of ``load_rows`` on a ``.npy`` in C order; None where the file is anything else."""
    try:
        with open_array(source, name) as stream:
            if isinstance(stream, zipfile.ZipExtFile):
                return None
            shape, fortran, dtype = _array_header(stream)
            layout, start = layout_of(shape), stream.tell()
            if fortran:
                return None
            _check_rows(numbers, shape[0])
            size = math.prod(shape[1:]) * dtype.itemsize
            if stream.seek(0, os.SEEK_END) < start + shape[0] * size:
                raise EOFError
            run = _run_of(numbers)
            spans = [(run.start, len(numbers))] if run else [(number, 1) for number in numbers]
            data = b"".join(_bytes(stream, start + first * size, count * size) for first, count in spans)
            return _channels_second(np.frombuffer(data, dtype).reshape(-1, *shape[1:]), layout)
    except OSError as error:
        raise source.explain(error) from None


def _bytes(stream: IO[bytes], start: int, count: int) -> bytes:
    stream.seek(start)
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _run_of(numbers: Sequence[int]) -> slice | None:
    """Return the numbers as a slice where they follow each other."""
    consecutive = list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
    return slice(numbers[0], numbers[0] + len(numbers)) if consecutive else None


def _check_rows(numbers: Sequence[int], count: int) -> None:
    if max(numbers) >= count:
        raise FileProblem("file_changed", "The array has changed since INPUT was scanned; run the scan again.")


def _array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether it is in Fortran order, and type."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise _data_type()
    return shape, fortran, dtype


def _data_type() -> FileProblem:
    return FileProblem("data_type", "The array holds neither integers nor real numbers of up to 64 bits.")


def _value_range(stream: IO[bytes], dtype: np.dtype[Any], count: int) -> tuple[float | None, float | None]:
    """Return the smallest and largest finite value of the ``count`` values that follow in ``stream``."""
    low, high, left = math.inf, -math.inf, count
    while left:
        block = stream.read(min(left, BLOCK_BYTES // dtype.itemsize) * dtype.itemsize)
        if len(block) < dtype.itemsize:
            raise EOFError
        values = np.frombuffer(block[: len(block) // dtype.itemsize * dtype.itemsize], dtype)
        left -= len(values)
        if dtype.kind == "f":
            values = values[np.isfinite(values)]
        if len(values):
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return (low, high) if low <= high else (None, None)
