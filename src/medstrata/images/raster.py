"""PNG, JPEG and BMP through Pillow: 8 and 16 bit, grey and colour.

Grey stays grey (16 bit too), everything else becomes RGB: palettes, CMYK, 1-bit images become 0..255. The rotation that
a camera wrote into EXIF is applied; transparency is laid over black. 16-bit colour is read with 8 bits per channel,
which is all Pillow offers. Such files carry no geometry and do not say whether text is burned in.
"""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medstrata.errors import FileProblem
from medstrata.images.listing import Source
from medstrata.images.records import FrameSource, ImageRecord, Pixels, SkippedFile

MAX_PIXELS = 100_000_000  # per 2-D image; larger ones are slides or maps, not images to cluster whole
DECODER = f"pillow {PIL.__version__}"

_ORIENTATION = 0x0112  # EXIF tag
_GREY_MODES = {"1": 8, "L": 8, "LA": 8, "La": 8, "I;16": 16, "I;16B": 16, "I": 16, "F": 32}  # mode: bits
_RGB_MODES = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr")
_DAMAGE = (SyntaxError, ValueError, struct.error, zlib.error, EOFError, IndexError, TypeError, KeyError, OverflowError)

logging.getLogger("PIL").addHandler(logging.NullHandler())  # its messages may name the file


def read_headers(source: Source, name: str) -> list[ImageRecord | SkippedFile]:
    """Return the record of one image without decoding it. FileProblem: it cannot be opened as an image."""
    with source.open(name) as file, opened(file) as image:
        file_format = _format(image)
        if image.width * image.height > MAX_PIXELS:
            return [too_large(name, file_format)]
        bits, channels = _kind(image)
        rows, columns = image.height, image.width
        if _orientation(image) > 4:  # a quarter turn
            rows, columns = columns, rows
        moving = getattr(image, "is_animated", False)
        return [
            ImageRecord(
                unit="image",
                format=file_format,
                frames=[FrameSource(name)],
                rows=rows,
                columns=columns,
                channels=channels,
                bits=bits,
                geometry="none",
                geometry_note="Only the first image of this file is read." if moving else "",
                photometric="MONOCHROME2" if channels == 1 else "RGB",
                value_low=0.0,
                value_high=float(2**bits - 1),
            )
        ]


def read_pixels(source: Source, frames: Sequence[FrameSource], slices: Sequence[int] | None = None) -> Pixels:
    """Decode one image to ``(1, H, W)`` or ``(3, H, W)`` float32 of its stored values.

    Raises
    ------
    FileProblem : ``truncated``, ``damaged``, ``too_large``, ``colour_space``
    """
    with source.open(frames[0].file) as file, opened(file) as image:
        if image.width * image.height > MAX_PIXELS:
            raise FileProblem("too_large", too_large("", "").reason)
        orientation = _orientation(image)
        notes: list[str] = []
        array = decoded(image, notes)
    if orientation != 1:
        array = turned(array, orientation)
        notes.append("Turned upright as the camera's EXIF tag says.")
    return Pixels(channels_first(array, notes), decoder=DECODER, notes=notes)


def too_large(name: str, file_format: str) -> SkippedFile:
    """Return the row of an image with more pixels than are clustered whole."""
    reason = f"More than {MAX_PIXELS // 10**6} million pixels; cut it into tiles or save a smaller copy."
    return SkippedFile(name, "too_large", reason, format=file_format)


@contextmanager
def opened(file: BinaryIO) -> Iterator[Image.Image]:
    """Open an image and turn every way in which Pillow fails, now or in the ``with`` block, into a FileProblem."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oversize is judged by MAX_PIXELS; damaged metadata does not matter
            yield Image.open(file, formats=("PNG", "JPEG", "BMP", "TIFF"))
    except Image.DecompressionBombError:
        raise FileProblem("too_large", too_large("", "").reason) from None
    except UnidentifiedImageError:
        raise FileProblem("damaged", "The image is damaged or of a kind that Pillow cannot read.") from None
    except OSError as error:
        if error.errno is not None:
            raise
        if "truncated" in str(error) or "Truncated" in str(error):
            raise FileProblem("truncated", "The image is cut short; copy or export it again.") from None
        raise FileProblem("damaged", "The image is damaged or of a kind that Pillow cannot read.") from None
    except _DAMAGE:
        raise FileProblem("damaged", "The image is damaged and cannot be decoded.") from None


def decoded(image: Image.Image, notes: list[str]) -> NDArray[Any]:
    """Return the pixels ``(H, W)`` or ``(H, W, 3)``; what was changed on the way is added to ``notes``."""
    if _loses_bits(image):
        notes.append("Stored with 16 bits per channel, read with 8.")
    if _from_grey_alpha_16(image):
        image = image.convert("LA")
    image.load()
    transparent = "transparency" in image.info
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode in ("I;16", "I;16B", "I", "F") or (image.mode == "L" and not transparent):
        return np.asarray(image)
    if image.mode in ("L", "LA", "La"):
        return over_black(np.asarray(image.convert("LA")), notes)
    if image.mode not in _RGB_MODES:
        raise FileProblem("colour_space", f"Colours are stored as {image.mode}, which is not read; save as RGB.")
    if image.mode not in ("RGB", "RGBA", "RGBa", "RGBX"):
        notes.append(f"Converted from {image.mode} to RGB.")
    if transparent or image.mode in ("RGBA", "RGBa", "PA"):
        return over_black(np.asarray(image.convert("RGBA")), notes)
    return np.asarray(image.convert("RGB"))


def over_black(array: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """Return ``(H, W, C + 1)`` unsigned integers without the last channel, which is opacity: laid over black."""
    colour, opacity = array[..., :-1], array[..., -1:] / np.float32(np.iinfo(array.dtype).max)
    if (opacity < 1).any():
        notes.append("Transparency laid over black.")
        colour = np.asarray(np.rint(colour * opacity))
    return colour[..., 0] if colour.shape[-1] == 1 else colour


def channels_first(array: NDArray[Any], notes: list[str]) -> NDArray[np.float32]:
    """Return ``(H, W)`` or ``(H, W, C)`` as float32 ``(C, H, W)``, and note colour images that show only grey."""
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    if len(array) == 3 and np.array_equal(array[0], array[1]) and np.array_equal(array[0], array[2]):
        notes.append("Stored in colour but shows only grey.")
    return np.ascontiguousarray(array, dtype=np.float32)


def turned(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return ``(H, W, ...)`` turned upright by the EXIF / TIFF tag Orientation (1 to 8, EXIF 2.32 section 4.6.4)."""
    if orientation > 4:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _format(image: Image.Image) -> str:
    return {"MPO": "jpeg"}.get(image.format or "", (image.format or "").lower())


def _kind(image: Image.Image) -> tuple[int, int]:
    """Return bits per sample and number of channels after reading."""
    if _from_grey_alpha_16(image):
        return 8, 1
    return _GREY_MODES.get(image.mode, 8), 1 if image.mode in _GREY_MODES else 3


def _from_grey_alpha_16(image: Image.Image) -> bool:
    """Whether Pillow gives RGBA for a PNG that holds grey and opacity with 16 bits."""
    return image.mode == "RGBA" and any("LA;16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _loses_bits(image: Image.Image) -> bool:
    """Whether Pillow gives 8 bits per channel for a file, not yet decoded, that holds 16."""
    tiles = getattr(image, "tile", ())
    return image.mode not in _GREY_MODES and any(";16" in str(tile[3]) for tile in tiles)


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # asking Pillow would decode the whole image to look for a tag behind it
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (*_DAMAGE, OSError):
        return 1  # damaged EXIF does not make the pixels unusable
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
