"""Decoding DICOM frames to stored values through pydicom's decoders, in an order of preference measured to be fast."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO

from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import RLELossless

from medstrata.errors import FileProblem
from medstrata.images.dicom import too_large
from medstrata.images.dicom_header import Header
from medstrata.images.dicom_kinds import REASONS
from medstrata.images.dicom_values import DatasetValues, tags
from medstrata.images.listing import Source

PIXEL_TAGS = tags(
    """NumberOfFrames Rows Columns SamplesPerPixel PhotometricInterpretation PlanarConfiguration BitsAllocated
    BitsStored HighBit PixelRepresentation ExtendedOffsetTable ExtendedOffsetTableLengths"""
)

PREFERENCE = ("pylibjpeg", "pyjpegls", "pillow", "gdcm", "pydicom")  # gdcm after others: it takes long to import
_PACKAGES = {"pyjpegls": "pyjpegls", "pillow": "pillow", "gdcm": "python-gdcm", "pydicom": "pydicom"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """Stored values of one frame, (H, W) or (H, W, samples); YBR is already RGB."""

    array: NDArray[Any]
    photometric: str
    decoder: str


@contextmanager
def opened(source: Source, name: str) -> Iterator[BinaryIO]:
    """Open one file so that seeking is cheap, and turn errors of the operating system into ours."""
    try:
        if source.local_path(name) is None:
            yield io.BytesIO(source.read(name))
        else:
            with source.open(name) as file:
                yield file
    except OSError as error:
        raise source.explain(error) from None


def decode(file: BinaryIO, header: Header[DatasetValues], numbers: Sequence[int]) -> list[Decoded]:
    """Decode frames ``numbers`` (0-based) with the first decoder that can; other frames are not touched.

    Raises
    ------
    FileProblem : "no_pixels", "unsupported_syntax", "truncated", "too_large", "decode_failed"
    """
    if not header.pixel_keyword:
        raise FileProblem("no_pixels", "The file has no pixels.")
    try:
        decoder = get_decoder(header.transfer_syntax)
    except NotImplementedError:
        sentence = f"No decoder for the transfer syntax {header.transfer_syntax.name}."
        raise FileProblem("unsupported_syntax", sentence) from None
    options = as_pixel_options(header.values.dataset)
    options |= {"pixel_keyword": header.pixel_keyword, "pixel_vr": header.pixel_vr}
    if max(numbers) >= int(options["number_of_frames"]):
        raise FileProblem("truncated", "The file has fewer frames than when it was scanned.")
    pixel_bytes = int(options.get("samples_per_pixel", 1)) * int(options.get("bits_allocated", 8)) / 8
    if too_large(int(options["rows"]) * int(options["columns"]), len(numbers), pixel_bytes):
        raise FileProblem("too_large", REASONS["too_large"])
    pixels, start = _pixel_file(file, header)
    if decoder.is_native:
        _check_length(pixels, start, decoder, options)
        plugins: list[str] = [""]
    else:
        plugins = sorted(decoder.available_plugins, key=PREFERENCE.index)
    return _first_that_can(pixels, start, decoder, options, numbers, plugins)


def _first_that_can(
    pixels: BinaryIO, start: int, decoder: Decoder, options: dict[str, Any], numbers: Sequence[int], plugins: list[str]
) -> list[Decoded]:
    failures: list[str] = []
    for plugin in plugins:
        pixels.seek(start)
        label = _label(plugin, decoder.UID)
        try:
            found = decoder.iter_array(
                pixels, indices=numbers, validate=True, raw=False, decoding_plugin=plugin, **options
            )
            return [Decoded(array, str(properties["photometric_interpretation"]), label) for array, properties in found]
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  whatever one decoder raises, the next one is tried
            failures.append(f"{label or 'pydicom'} {type(error).__name__}")
    raise FileProblem(
        "decode_failed",
        f"The pixels ({decoder.UID.name}) could not be decoded ({', '.join(failures)}). The file is damaged, "
        "or compressed in a way that no installed decoder reads.",
    )


def _pixel_file(file: BinaryIO, header: Header[DatasetValues]) -> tuple[BinaryIO, int]:
    """Return a file with the pixel value and where in it the value starts."""
    if not header.deflated:
        return file, header.pixel_start
    file.seek(0)
    dataset = dcmread(file, force=True, specific_tags=[header.pixel_keyword])
    return io.BytesIO(dataset[header.pixel_keyword].value), 0


def _check_length(pixels: BinaryIO, start: int, decoder: Decoder, options: dict[str, Any]) -> None:
    """Raise FileProblem when there are fewer bytes than the frames need."""
    bits = int(options.get("bits_allocated", 0)) * int(options.get("samples_per_pixel", 1))
    needed = int(options["rows"]) * int(options["columns"]) * int(options["number_of_frames"]) * bits / 8
    if options.get("photometric_interpretation") == "YBR_FULL_422":
        needed = needed * 2 / 3
    if pixels.seek(0, io.SEEK_END) - start < int(needed):
        raise FileProblem("truncated", "The file ends before its pixels do; it was probably not copied completely.")


def _label(plugin: str, syntax: str) -> str:
    package = _PACKAGES.get(plugin or "pydicom")
    if package is None:
        package = "pylibjpeg-rle" if syntax == RLELossless else "pylibjpeg-openjpeg"
    return f"{package} {_version(package)}"


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"
