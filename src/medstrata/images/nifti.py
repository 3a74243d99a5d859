"""NIfTI-1 and NIfTI-2 in one file (``.nii``, ``.nii.gz``) through nibabel, either byte order.

Data stored as ``(X, Y, Z)`` becomes ``(Z, Y, X) = (D, H, W)`` with the affine's columns exchanged alike: the file's own
grid, only transposed. Of a series over time the first volume is read. Nothing but the header and a fixed list of BIDS
suffixes in the file name (``_T1w`` and the like) says what an image shows.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import nibabel
import nibabel.arrayproxy
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medstrata.errors import FileProblem
from medstrata.images.listing import Source
from medstrata.images.nifti_geometry import Geometry, geometry_of, orientation_of
from medstrata.images.records import FrameSource, ImageRecord, Pixels, SkippedFile

MAX_BYTES = 16 * 2**30  # of one volume as stored
MAX_OFFSET = 2**30  # bytes before the data; header extensions are far smaller
SUFFIXES = {  # BIDS suffix in lower case: (modality, class of the series)
    "t1w": ("MR", "t1"),
    "t2w": ("MR", "t2"),
    "flair": ("MR", "flair"),
    "bold": ("MR", "bold"),
    "dwi": ("MR", "dwi"),
    "ct": ("CT", ""),
}
DECODER = f"nibabel {nibabel.__version__}"

_LABEL_INTENT = 1002  # NIFTI_INTENT_LABEL
_HEADER_CLASSES: dict[int, Any] = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}  # by size in bytes
_EXTENSION_FLAG = 4  # bytes between the header and the data at the earliest
_DAMAGE = (HeaderDataError, ValueError, TypeError, KeyError, EOFError, zlib.error, OverflowError)

logging.getLogger("nibabel.global").addHandler(logging.NullHandler())
logging.getLogger("nibabel.global").propagate = False  # its messages may name the file


@dataclass(frozen=True, slots=True)
class _Header:
    """What is used of a header. ``shape``: (X, Y, Z) of one volume."""

    shape: tuple[int, int, int]
    volumes: int
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    geometry: Geometry
    notes: tuple[str, ...]

    @property
    def channels(self) -> int:
        """3 for RGB and RGBA, else 1."""
        return 3 if self.dtype.names else 1


class _Skip(Exception):
    """This file is no image for us."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


def read_headers(source: Source, name: str) -> list[ImageRecord | SkippedFile]:
    """Return the record of one file from its header alone, or the reason why it is left out.

    Raises
    ------
    FileProblem : ``damaged``
    """
    try:
        with source.open(name) as file, _decompressed(file) as stream:
            header = _read_header(stream)
    except _Skip as skip:
        return [SkippedFile(name, skip.code, skip.reason, format="nifti")]
    modality, series_class = _from_name(name)
    columns, rows, slices = header.shape
    spacing = header.geometry.spacing
    return [
        ImageRecord(
            unit="series" if slices > 1 else "image",
            format="nifti",
            frames=[FrameSource(name)],
            rows=rows,
            columns=columns,
            slices=slices,
            channels=header.channels,
            bits=8 if header.channels == 3 else header.dtype.itemsize * 8,
            modality=modality,
            series_class=series_class,
            spacing_rows=spacing[1],
            spacing_columns=spacing[2],
            spacing_slices=spacing[0] if slices > 1 else None,
            orientation=orientation_of(header.geometry.affine),
            geometry="regular" if slices > 1 else "single",
            geometry_note=" ".join(header.notes),
            photometric="RGB" if header.channels == 3 else "MONOCHROME2",
        )
    ]


def read_pixels(source: Source, frames: Sequence[FrameSource], slices: Sequence[int] | None = None) -> Pixels:
    """Decode one file to float32 ``(C, D, H, W)``, or ``(C, H, W)`` where it has a single slice.

    ``slices``: numbers along D to read, in that order; the affine stays that of the whole stack. Values are scaled by
    the header's slope and intercept. Where the file name says CT they are taken as Hounsfield units.

    Raises
    ------
    FileProblem : ``truncated``, ``damaged``, ``not_finite``, or the code for which ``read_headers`` leaves it out
    """
    name = frames[0].file
    try:
        with source.open(name) as file, _decompressed(file) as stream:
            header = _read_header(stream)
            raw = _read_data(stream, header, slices)
    except _Skip as skip:
        raise FileProblem(skip.code, skip.reason) from None
    notes = list(header.notes)
    modality, _ = _from_name(name)
    array = _finite(_scaled(raw, header), notes, in_hounsfield=modality == "CT")
    single = header.shape[2] == 1
    spacing = tuple(size for size in header.geometry.spacing if size is not None)
    return Pixels(
        np.ascontiguousarray(array[:, 0] if single else array),
        affine=header.geometry.affine,
        spacing=None if len(spacing) < 3 else spacing[1:] if single else spacing,
        units="HU" if modality == "CT" else "stored",
        decoder=DECODER,
        notes=notes,
    )


@contextmanager
def _decompressed(file: BinaryIO) -> Iterator[BinaryIO]:
    """Yield the uncompressed stream of a file, and turn damage, now or in the ``with`` block, into a FileProblem."""
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    try:
        yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
    except OSError as error:
        if error.errno is not None:
            raise
        raise FileProblem("truncated", "The NIfTI file is cut short or its gzip is damaged; copy it again.") from None
    except EOFError:
        raise FileProblem("truncated", "The NIfTI file is cut short; copy it again.") from None
    except _DAMAGE:
        raise FileProblem("damaged", "The NIfTI file is damaged; export it again.") from None


def _read_header(stream: BinaryIO) -> _Header:
    start = stream.read(540)
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    size = next((size for size in _HEADER_CLASSES if size in sizes), 0)
    if not size or len(start) < size:
        raise FileProblem("truncated", "The NIfTI header is cut short; copy the file again.")
    header: Any = _HEADER_CLASSES[size](start[:size], check=False)
    if bytes(header["magic"])[:2] != b"n+":
        raise _Skip("nifti_pair", "A NIfTI pair (.hdr and .img); convert it to a single .nii file.")
    if int(header["intent_code"]) == _LABEL_INTENT:
        raise _Skip("label_map", "The header says that this is a map of labels, not an image.")
    shape, volumes = _shape([int(length) for length in header.get_data_shape()])
    dtype = header.get_data_dtype()
    if not (dtype.names or (dtype.kind in "iuf" and dtype.itemsize <= 8)):
        raise _Skip("data_type", "The values are neither integers nor real numbers.")
    if int(np.prod(shape)) * dtype.itemsize > MAX_BYTES:
        raise _Skip("too_large", f"One volume is larger than {MAX_BYTES // 2**30} GB.")
    geometry = geometry_of(header, shape)
    notes = list(geometry.notes)
    if volumes > 1:
        notes.append(f"The first of {volumes} volumes is read.")
    slope, intercept = _scale(header, notes)
    if not np.abs(header["vox_offset"]) < MAX_OFFSET:
        raise FileProblem("damaged", "The NIfTI header is damaged; export the file again.")
    offset = max(int(header.get_data_offset()), size + _EXTENSION_FLAG)  # some programs write 0
    return _Header(shape, volumes, dtype, offset, slope, intercept, geometry, tuple(notes))


def _shape(stored: list[int]) -> tuple[tuple[int, int, int], int]:
    """Return (X, Y, Z) and the number of volumes."""
    full = stored + [1] * (4 - len(stored))
    if min(full, default=0) < 1:
        raise FileProblem("damaged", "The NIfTI header gives no valid size.")
    if any(length > 1 for length in full[4:]):
        raise _Skip("vector_data", "Every voxel holds several values (vectors or tensors), which is not an image here.")
    if min(full[:2]) < 2:
        raise _Skip("no_image", "The file holds single values or lines, not images.")
    return (full[0], full[1], full[2]), full[3]


def _scale(header: Any, notes: list[str]) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 means "not scaled" (NIfTI-1 standard)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or header.get_data_dtype().names:
        return 1.0, 0.0
    if np.isfinite(slope) and np.isfinite(intercept):
        return slope, intercept
    notes.append("The header's scale is not a number: values are used as stored.")
    return 1.0, 0.0


def _read_data(stream: BinaryIO, header: _Header, slices: Sequence[int] | None) -> NDArray[Any]:
    """Return the stored values as ``(D, H, W)``; RGB as a structured array."""
    shape = (*header.shape, header.volumes)
    reader: Any = nibabel.arrayproxy.ArrayProxy
    proxy = reader(stream, (shape, header.dtype, header.offset, 1.0, 0.0), mmap=False)
    try:
        if slices is None:
            volume = np.asarray(proxy[..., 0])
        else:
            read = {number: np.asarray(proxy[:, :, number, 0]) for number in sorted(set(slices))}
            volume = np.stack([read[number] for number in slices], axis=-1)
    except ValueError:  # nibabel's word for fewer bytes than the header promises
        raise FileProblem("truncated", "The NIfTI file is cut short; copy it again.") from None
    return volume.transpose(2, 1, 0)


def _scaled(raw: NDArray[Any], header: _Header) -> NDArray[Any]:
    """Return ``(C, D, H, W)`` of scaled values."""
    if raw.dtype.names:
        return np.stack([raw[channel].astype(np.float32) for channel in raw.dtype.names[:3]])
    array = raw[None]
    if (header.slope, header.intercept) != (1.0, 0.0):
        exact = np.result_type(raw.dtype, np.float32)  # float64 where float32 would round the stored value
        array = array.astype(exact) * exact.type(header.slope) + exact.type(header.intercept)
    return array


def _finite(array: NDArray[Any], notes: list[str], in_hounsfield: bool) -> NDArray[np.float32]:
    """Return float32 without NaN: NIfTI files mark what lies outside of the measured region with it."""
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    finite = np.isfinite(array)
    if not finite.any():
        raise FileProblem("not_finite", "No voxel holds a number (all NaN or infinite).")
    if not finite.all():
        fill = array[finite].min() if in_hounsfield else np.float32(0)  # 0 HU would be soft tissue
        notes.append(f"Voxels that are not numbers (NaN or infinite) were set to {fill:g}.")
        array = np.where(finite, array, fill)
    return array


def _from_name(name: str) -> tuple[str, str]:
    """Return modality and class from the last "_" part of the file name, where it is one of ``SUFFIXES``."""
    stem = name.rsplit("/", 1)[-1].lower().removesuffix(".gz").removesuffix(".nii")
    return SUFFIXES.get(stem.rsplit("_", 1)[-1], ("", "")) if "_" in stem else ("", "")
