"""Which module reads which format, chosen by content; here any failure of a reader becomes a reason."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from medstrata.errors import FileProblem, MedstrataError
from medstrata.images.listing import Entry, Source
from medstrata.images.records import FrameSource, Pixels, SkippedFile
from medstrata.images.sniff import FIRST_BYTES, sniff

# Imported when the first such file turns up: a folder of PNGs needs neither pydicom nor nibabel.
_HEADERS = {
    "dicom": "dicom",
    "nifti": "nifti",
    "png": "raster",
    "jpeg": "raster",
    "bmp": "raster",
    "tiff": "tiff",
    "npy": "array",
    "npz": "array",
}
_PIXELS = {**_HEADERS, "dicom": "dicom_pixels", "array": "array"}
_OTHER_FORMATS = (  # images of formats that are not read: what to do with them
    (b"GIF8", "A GIF; save it as PNG."),
    (b"RIFF", "A WebP image, a film or a sound; save images as PNG."),
    (b"\x00\x00\x00\x0cjP  ", "A JPEG 2000 image; save it as PNG or TIFF."),
    (b"NRRD", "A NRRD file; convert it to NIfTI."),
    (b"ObjectType", "A MetaImage file; convert it to NIfTI."),
    (b"\x89HDF", "An HDF5 file; save its images as .npz under the key images."),
    (b"MATLAB", "A MATLAB file; save its images as .npz under the key images."),
    (b"%PDF", "A PDF document."),
)


def headers_of(source: Source, entry: Entry) -> list[Any]:
    """Return what the reader of its format finds in one file: ImageRecord, SkippedFile and FrameHeader.

    Whatever goes wrong in this file becomes a SkippedFile. InputError: INPUT itself is gone.
    """
    try:
        if entry.size == 0:
            raise FileProblem("empty_file", "The file is empty.")
        return _read_headers(source, entry.name)
    except FileProblem as problem:
        return [SkippedFile(entry.name, problem.code, problem.sentence)]
    except MedstrataError:
        raise
    except OSError as error:
        problem_or_end = source.explain(error)
        if isinstance(problem_or_end, FileProblem):
            return [SkippedFile(entry.name, problem_or_end.code, problem_or_end.sentence)]
        raise problem_or_end from None
    except Exception as error:  # noqa: BLE001  # parsers raise anything on a damaged file; it must not stop the scan
        return [SkippedFile(entry.name, "unreadable", _unreadable(error))]


def read_pixels(
    source: Source, file_format: str, frames: Sequence[FrameSource], slices: Sequence[int] | None = None
) -> Pixels:
    """Decode one image of the catalog: see ``records.Pixels``.

    ``slices``: which slices of the stack to read, in that order; None reads all. The affine is that of the whole
    stack.

    Raises
    ------
    FileProblem : this image cannot be used
    InputError : INPUT itself is gone
    """
    try:
        pixels: Pixels = _module(_PIXELS[file_format]).read_pixels(source, frames, slices)
        return pixels
    except MedstrataError:
        raise
    except OSError as error:
        raise source.explain(error) from None
    except Exception as error:  # noqa: BLE001  # decoders raise anything on a damaged file; it must not stop the run
        raise FileProblem("unreadable", _unreadable(error)) from None


def _read_headers(source: Source, name: str) -> list[Any]:
    with source.open(name) as file:
        start = file.read(FIRST_BYTES)
        kind = sniff(start)
        if kind == "dicom":  # read where it is open: opening takes as long as half of the reading
            file.seek(0)
            headers: list[Any] = _module("dicom").read_headers(source, name, file)
            return headers
    if kind in ("zip", "archive"):
        reason = "An archive inside INPUT is not opened; unpack it first, or name it as INPUT."
        return [SkippedFile(name, "archive_inside", reason)]
    if not kind:
        return [SkippedFile(name, "unknown_format", _unknown(start))]
    found: list[Any] = _module(_HEADERS[kind]).read_headers(source, name)
    return found


def _module(name: str) -> Any:
    return import_module(f"medstrata.images.{name}")


def _unknown(start: bytes) -> str:
    known = next((reason for signature, reason in _OTHER_FORMATS if start.startswith(signature)), "")
    return known or "Not a file of images that is read here (DICOM, NIfTI, PNG, JPEG, BMP, TIFF, NumPy)."


def _unreadable(error: Exception) -> str:
    return f"The file could not be read ({type(error).__name__}); it may be damaged."
