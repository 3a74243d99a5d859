"""TIFF through tifffile, and through Pillow where the compression or colour space needs it (LZW, JPEG, palettes).

Every page is an image of its own: a stack of slices is not guessed from a TIFF. Whole-slide images (pyramids, slide
scanners' formats) are left out with a reason. Integers keep their bits, floats their values. White-is-zero is inverted
to black-is-zero; the Orientation tag is applied.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from medstrata.errors import FileProblem
from medstrata.images import raster
from medstrata.images.listing import Source
from medstrata.images.records import FrameSource, ImageRecord, Pixels, SkippedFile

MAX_PAGES = 10_000  # more pages than this are a film, not a set of images
SLIDE_PIXELS = 4096 * 4096  # a tiled page of this size with smaller copies is a slide, a smaller one has a thumbnail
DAMAGED = "The TIFF is damaged or cut short; export it again."
DECODER = f"tifffile {tifffile.__version__}"

_SLIDE_FORMATS = ("is_svs", "is_ndpi", "is_scn", "is_bif", "is_philips", "is_qpi")
_WHITE_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB = 0, 2, 3, 5, 6, 8  # TIFF 6.0 PhotometricInterpretation
_UNASSOCIATED_OPACITY = 2  # TIFF 6.0 ExtraSamples; associated opacity (1) is already laid over black
_SCALED_BITS = range(2, 8)  # Pillow spreads these over 0..255
_ORIENTATION = 274
_DAMAGE = (
    tifffile.TiffFileError,
    NotImplementedError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
    EOFError,
)

_log = logging.getLogger("tifffile")  # its messages name the file: none of them may reach a log
_log.addHandler(logging.NullHandler())
_log.propagate = False


def read_headers(source: Source, name: str) -> list[ImageRecord | SkippedFile]:
    """Return one record per page (``frame`` is the page), or the reason why the file is left out.

    Raises
    ------
    FileProblem : ``damaged``
    """
    with source.open(name) as file, _opened(file) as tiff:
        if _has_page(tiff, MAX_PAGES):
            return [SkippedFile(name, "too_many_pages", f"More than {MAX_PAGES} pages; split the file.", format="tiff")]
        pages = [page.aspage() for page in tiff.pages]
        numbered = [(number, page) for number, page in enumerate(pages) if number == 0 or not page.is_reduced]
        if not all(page.imagewidth and page.imagelength for _, page in numbered):
            raise FileProblem("damaged", DAMAGED)
        code, reason = _problem(tiff, [page for _, page in numbered])
        if code:
            return [SkippedFile(name, code, reason, format="tiff")]
        note = ""
        if len(numbered) > 1:
            note = f"One of {len(numbered)} pages of a TIFF; pages are taken as separate images, not as a stack."
        return [_record(FrameSource(name, number), page, note) for number, page in numbered]


def read_pixels(source: Source, frames: Sequence[FrameSource], slices: Sequence[int] | None = None) -> Pixels:
    """Decode one page to ``(1, H, W)`` or ``(3, H, W)`` float32 of its stored values.

    Raises
    ------
    FileProblem : ``truncated``, ``damaged``, ``tiff_compression``, ``not_finite``
    """
    frame, notes = frames[0], list[str]()
    with source.open(frame.file) as file:
        array, decoder = _decode(file, frame.frame, notes)
    if not array.size or array.ndim > 3:
        raise FileProblem("damaged", DAMAGED)
    pixels = raster.channels_first(array, notes)
    if not np.isfinite(pixels).all():
        raise FileProblem("not_finite", "The image holds values that are not finite (NaN or infinite).")
    return Pixels(pixels, decoder=decoder, notes=notes)


@contextmanager
def _opened(file: BinaryIO) -> Iterator[tifffile.TiffFile]:
    try:
        with tifffile.TiffFile(file, name="") as tiff:
            yield tiff
    except _DAMAGE:
        raise FileProblem("damaged", DAMAGED) from None


def _has_page(tiff: tifffile.TiffFile, number: int) -> bool:
    """Whether there is such a page, found by following the pages' offsets no further than to it."""
    try:
        tiff.pages[number]
    except IndexError:
        return False
    return True


def _problem(tiff: tifffile.TiffFile, pages: list[tifffile.TiffPage]) -> tuple[str, str]:
    """Return code and sentence of why this TIFF is left out, or two empty strings."""
    if not pages:
        return "no_image", "The TIFF holds no image."
    first = pages[0]
    pixels = first.imagewidth * first.imagelength
    smaller_copies = bool(first.subifds) or (len(pages) < len(tiff.pages) and pixels >= SLIDE_PIXELS)
    if smaller_copies or any(getattr(tiff, flag) for flag in _SLIDE_FORMATS):
        return "whole_slide", "A whole-slide image (one picture at several sizes); cut it into tiles first."
    if pixels > raster.MAX_PIXELS:
        return "too_large", raster.too_large("", "").reason
    if len({(page.shape, page.dtype) for page in pages}) > 1:
        return "mixed_pages", "The pages differ in size or type; split the file into one file per image."
    if _hidden_planes(tiff) or first.imagedepth > 1:
        return "stack_in_page", "One page holds a whole stack; export it with one page per plane, or as NIfTI."
    if first.dtype is None or first.dtype.kind not in "biuf":
        return "data_type", "The values are neither integers nor real numbers."
    if not _channels(first):
        return "channels", f"{first.samplesperpixel} channels per pixel; 1 (grey) or 3 (colour) are read."
    return "", ""


def _hidden_planes(tiff: tifffile.TiffFile) -> bool:
    """Whether ImageJ or tifffile wrote several planes behind a single page."""
    planes = (tiff.imagej_metadata or {}).get("images", 1) if tiff.is_imagej else 1
    return planes > len(tiff.pages) or any(part.get("truncated") for part in tiff.shaped_metadata or ())


def _channels(page: tifffile.TiffPage) -> int:
    """Return the channels after reading: 1, 3, or 0 where the page cannot be read."""
    colour = page.photometric in (_RGB, _CMYK, _YCBCR, _CIELAB)
    if page.samplesperpixel == 1:
        return 3 if page.photometric == _PALETTE else 1
    if page.samplesperpixel == 2:
        return 1 if len(page.extrasamples) == 1 else 0
    return 3 if page.samplesperpixel == 3 or (page.samplesperpixel == 4 and colour) else 0


def _record(frame: FrameSource, page: tifffile.TiffPage, note: str) -> ImageRecord:
    rows, columns = page.imagelength, page.imagewidth
    if _orientation(page) > 4:
        rows, columns = columns, rows
    unsigned = page.dtype is not None and page.dtype.kind in "bu"
    bits = 8 if page.bitspersample < 8 or page.photometric == _PALETTE else int(page.bitspersample)
    return ImageRecord(
        unit="image",
        format="tiff",
        frames=[frame],
        rows=rows,
        columns=columns,
        channels=_channels(page),
        bits=bits,
        geometry="none",
        geometry_note=note,
        photometric="RGB" if _channels(page) == 3 else "MONOCHROME2",
        value_low=0.0 if unsigned else None,
        value_high=float(2**bits - 1) if unsigned else None,
    )


def _orientation(page: tifffile.TiffPage) -> int:
    tag = page.tags.get(_ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def _decode(file: BinaryIO, number: int, notes: list[str]) -> tuple[NDArray[Any], str]:
    """Return ``(H, W)`` or ``(H, W, 3)`` of one page, and the name of what decoded it."""
    missing_codec = False
    with _opened(file) as tiff:
        page = tiff.pages[number].aspage()
        if page.photometric not in (_PALETTE, _CMYK, _YCBCR, _CIELAB) and page.bitspersample not in _SCALED_BITS:
            try:
                return _plain(page, page.asarray(maxworkers=1), notes), DECODER
            except _DAMAGE as error:
                missing_codec = "imagecodecs" in str(error)
        file.seek(0)
        try:
            return _with_pillow(file, number, notes), raster.DECODER
        except FileProblem as problem:
            if missing_codec and problem.code == "damaged":
                sentence = "This TIFF's compression is not supported; save it uncompressed."
                raise FileProblem("tiff_compression", sentence) from None
            raise


def _with_pillow(file: BinaryIO, number: int, notes: list[str]) -> NDArray[Any]:
    with raster.opened(file) as image:
        image.seek(number)
        return raster.decoded(image, notes)  # Pillow applies a TIFF's Orientation itself


def _plain(page: tifffile.TiffPage, array: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """Bring decoded grey or RGB samples to black-is-zero, opaque, upright ``(H, W)`` or ``(H, W, 3)``."""
    if page.axes.startswith("S"):
        array = np.moveaxis(array, 0, -1)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)
    if page.photometric == _WHITE_IS_ZERO and array.dtype.kind == "u":
        array = array.dtype.type(255 if page.bitspersample == 1 else 2**page.bitspersample - 1) - array
        notes.append("Inverted: zero was white.")
    if array.ndim == 3 and array.shape[-1] in (2, 4):
        blend = page.extrasamples == (_UNASSOCIATED_OPACITY,) and array.dtype.kind == "u"
        array = raster.over_black(array, notes) if blend else array[..., :-1]
        array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    return raster.turned(array, _orientation(page))
