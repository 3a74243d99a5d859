"""DICOM pixels as numbers that mean something: decoded, rescaled frame by frame, colour as RGB, never windowed.

What is done and in which order: decode (``dicom_decode``), colour tables, modality LUT or rescale (PS3.3 C.11.1),
MONOCHROME1 inverted, padding (PS3.3 C.7.5.1.1.2) set to the lowest valid value. VOI LUT and windows are for display
and are not applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

from medstrata.errors import FileProblem, MedstrataError
from medstrata.images.dicom import parse_header
from medstrata.images.dicom_decode import PIXEL_TAGS, Decoded, decode, opened
from medstrata.images.dicom_frames import PLANE_TAGS, FunctionalGroups, Plane, plane_of, spacing_of
from medstrata.images.dicom_values import DatasetValues, Values, quiet, tags
from medstrata.images.listing import Source
from medstrata.images.records import FloatArray, FrameSource, Pixels
from medstrata.images.slices import median_step, series_affine

MEANING_TAGS = tags(
    """Modality RescaleSlope RescaleIntercept RescaleType ModalityLUTSequence PixelPaddingValue
    PixelPaddingRangeLimit FloatPixelPaddingValue FloatPixelPaddingRangeLimit DoubleFloatPixelPaddingValue
    DoubleFloatPixelPaddingRangeLimit
    RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
    RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
    SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData
    SegmentedBluePaletteColorLookupTableData"""
)
WANTED_TAGS = PIXEL_TAGS + PLANE_TAGS + MEANING_TAGS

AnyArray = NDArray[Any]

MEASURED = frozenset({"CT", "PT"})  # MONOCHROME1 concerns their display alone: their values are measurements
HOUNSFIELD = frozenset({"", "HU", "US"})  # rescale types of CT that mean HU: not stated, stated, "unspecified"
WIDE_TO_BYTE = 257.0  # 65535 / 255: 16-bit colour tables are brought to 0..255

INVERTED = "MONOCHROME1: inverted, so that bright means more signal."
NOT_INVERTED = "MONOCHROME1: not inverted, because the values are a measurement."
NOT_RESCALED = "CT without rescale: the values are stored values, not HU."
PADDED = "Padding pixels were set to the lowest valid value."


@dataclass(slots=True)
class Frame:
    """One frame with its meaning. ``array`` is (C, H, W); ``padding`` marks pixels (H, W) that hold no data."""

    array: FloatArray
    units: str
    decoder: str
    plane: Plane | None = None
    spacing: tuple[float, float] | None = None
    padding: NDArray[np.bool_] | None = None
    notes: list[str] = field(default_factory=list)


def read_pixels(source: Source, frames: Sequence[FrameSource], slices: Sequence[int] | None = None) -> Pixels:
    """Decode the frames of one DICOM image.

    Parameters
    ----------
    frames : all frames of the image in the order of its record
    slices : which of them to decode (indices into ``frames``); None for all. Nothing else is decoded.

    Returns
    -------
    Pixels with ``array`` (C, H, W) when the image has one frame, else (C, D, H, W) with D the number of frames decoded;
    C is 3 (RGB) for colour. ``units``: "HU" for CT with a rescale, "rescaled" for other rescaled values, else "stored".
    ``affine`` maps indices (slice in the whole stack, row, column) to RAS mm also when only some slices are decoded;
    None where the slices do not form an even grid. ``spacing`` is then (median step, rows, columns), and (rows,
    columns) alone for single images and for frames that are not slices.

    Raises
    ------
    FileProblem : "file_gone", "no_permission", "read_failed", "truncated", "unsupported_syntax", "too_large",
        "decode_failed", "frames_differ" (size or units change from frame to frame)
    InputError : INPUT itself is no longer reachable
    """
    wanted = list(range(len(frames))) if slices is None else list(slices)
    by_file: dict[str, list[int]] = {}
    for index in wanted:
        by_file.setdefault(frames[index].file, []).append(index)
    decoded: dict[int, Frame] = {}
    for name, indices in by_file.items():
        numbers = [frames[index].frame for index in indices]
        decoded.update(zip(indices, _read_file(source, name, numbers), strict=True))
    parts = [decoded[index] for index in wanted]
    first = parts[0]
    if any(part.array.shape != first.array.shape or part.units != first.units for part in parts):
        raise FileProblem("frames_differ", "The frames of this image differ in size or in the meaning of their values.")
    array = np.stack([part.array for part in parts], axis=1)
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    if _fill_padding(array, [part.padding for part in parts]):
        notes.append(PADDED)
    affine, step = _geometry(source, frames, decoded)
    spacing: tuple[float, ...] | None = first.spacing
    if spacing is not None and step is not None:
        spacing = (step, *spacing)
    decoder = ", ".join(dict.fromkeys(part.decoder for part in parts))
    return Pixels(array[:, 0] if len(frames) == 1 else array, affine, spacing, first.units, decoder, notes)


def _geometry(
    source: Source, frames: Sequence[FrameSource], decoded: dict[int, Frame]
) -> tuple[NDArray[np.float64] | None, float | None]:
    """Return the affine of the whole stack and mm between slices.

    They come from the frames decoded and from the two ends of the stack, whose headers are read for it.
    """
    planes = {index: frame.plane for index, frame in decoded.items()}
    spacing = next(iter(decoded.values())).spacing
    if len(frames) == 1:
        return series_affine(list(planes.values()), spacing), None
    for index in {0, len(frames) - 1} - planes.keys():
        planes[index] = None if None in planes.values() else _read_plane(source, frames[index])
    indices = sorted(planes)
    known = [plane for index in indices if (plane := planes[index]) is not None]
    if len(known) < len(indices):
        return None, None
    affine = series_affine(known, spacing, indices)
    return affine, median_step(known, indices) if affine is None else float(np.linalg.norm(affine[:3, 0]))


def _read_plane(source: Source, frame: FrameSource) -> Plane | None:
    with opened(source, frame.file) as file, quiet():
        values = parse_header(file, PLANE_TAGS).values
        return plane_of(values, FunctionalGroups(values), frame.frame)


def _read_file(source: Source, name: str, numbers: Sequence[int]) -> list[Frame]:
    """Decode frames ``numbers`` of one file."""
    with opened(source, name) as file, quiet():
        try:
            header = parse_header(file, WANTED_TAGS)
            groups = FunctionalGroups(header.values)
            return [
                _meaning(header.values, groups, number, one)
                for number, one in zip(numbers, decode(file, header, numbers), strict=True)
            ]
        except (MedstrataError, OSError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  damage can make decoders raise anything; it becomes this file's row
            sentence = f"The pixels could not be read ({type(error).__name__}); the file may be damaged."
            raise FileProblem("decode_failed", sentence) from None


# --- from stored values to values that mean something ---


def _meaning(values: DatasetValues, groups: FunctionalGroups, number: int, one: Decoded) -> Frame:
    plane, spacing = plane_of(values, groups, number), spacing_of(values, groups, number)
    if one.photometric == "PALETTE COLOR":
        colours = apply_color_lut(one.array, values.dataset)[..., :3]
        scale = WIDE_TO_BYTE if colours.dtype == np.uint16 else 1.0
        array = np.moveaxis(colours.astype(np.float32) / np.float32(scale), -1, 0)
        return Frame(array, "stored", one.decoder, plane, spacing)
    if one.array.ndim == 3:
        if one.array.shape[-1] != 3:
            sentence = f"An image with {one.array.shape[-1]} samples per pixel is neither grey nor RGB."
            raise FileProblem("decode_failed", sentence)
        array = np.moveaxis(one.array, -1, 0).astype(np.float32)
        return Frame(array, "stored", one.decoder, plane, spacing)
    grey, units, notes = _grey(values, groups, number, one)
    return Frame(grey[np.newaxis], units, one.decoder, plane, spacing, _padding(values, one.array), notes)


def _grey(
    values: DatasetValues, groups: FunctionalGroups, number: int, one: Decoded
) -> tuple[FloatArray, str, list[str]]:
    """Return the rescaled (and, for MONOCHROME1, inverted) values of a grey frame, their units, and notes."""
    modality = values.text("Modality")
    if values.items("ModalityLUTSequence"):
        units = "rescaled"
        array, low, high = _looked_up(values, one.array)
    else:
        slope, intercept, kind = _rescale(values, groups, number) or (1.0, 0.0, "none")
        array = (one.array * np.float64(slope) + intercept).astype(np.float32)
        low, high = (end * slope + intercept for end in _stored_ends(values, one.array))
        units = "stored" if kind == "none" else "rescaled"
        if modality == "CT" and kind in HOUNSFIELD:
            units = "HU"
    notes = [NOT_RESCALED] if modality == "CT" and units == "stored" else []
    if one.photometric == "MONOCHROME1":
        measured = modality in MEASURED and units != "stored"
        notes.append(NOT_INVERTED if measured else INVERTED)
        if not measured:
            array = np.float32(low + high) - array
    return array, units, notes


def _looked_up(values: DatasetValues, stored: AnyArray) -> tuple[FloatArray, float, float]:
    """Return the values of the modality lookup table, and its lowest and highest entry."""
    table = Dataset()
    table.set_original_encoding(*values.dataset.original_encoding)
    table.ModalityLUTSequence = values.dataset.ModalityLUTSequence
    count, first = (int(number) for number in table.ModalityLUTSequence[0].LUTDescriptor[:2])
    entries = apply_modality_lut(np.arange(first, first + (count or 2**16)), table)
    return apply_modality_lut(stored, table).astype(np.float32), float(entries.min()), float(entries.max())


def _stored_ends(values: Values, stored: AnyArray) -> tuple[float, float]:
    """Return the lowest and highest value that can be stored; for floating point those that are."""
    if stored.dtype.kind == "f":
        finite = stored[np.isfinite(stored)]
        return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    bits = values.integer("BitsStored") or stored.dtype.itemsize * 8
    if stored.dtype.kind == "i":
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1


def _rescale(values: Values, groups: FunctionalGroups, number: int) -> tuple[float, float, str] | None:
    """Return slope, intercept and type of rescale of one frame; None when there is none that makes sense."""
    holder = groups.group(number, "PixelValueTransformationSequence") or values
    slope, intercept = holder.number("RescaleSlope"), holder.number("RescaleIntercept")
    if slope is None or slope == 0:
        return None
    return slope, intercept or 0.0, holder.text("RescaleType").upper()


def _padding(values: Values, stored: AnyArray) -> NDArray[np.bool_] | None:
    """Return where the stored values are padding or no finite number, None where nowhere."""
    if stored.dtype.kind == "f":
        prefix = "DoubleFloat" if stored.dtype.itemsize == 8 else "Float"
        mask = ~np.isfinite(stored)
    else:
        prefix, mask = "", np.zeros(stored.shape, bool)
    low = values.number(f"{prefix}PixelPaddingValue")
    high = values.number(f"{prefix}PixelPaddingRangeLimit")
    if low is not None:
        low = _as_stored(low, stored.dtype)
        high = low if high is None else _as_stored(high, stored.dtype)
        mask |= (stored >= min(low, high)) & (stored <= max(low, high))
    return mask if mask.any() else None


def _as_stored(value: float, kind: np.dtype[Any]) -> float:
    """Read a padding value that was written unsigned as the signed number that the pixels hold, and the reverse."""
    wrap = 2.0 ** (kind.itemsize * 8)
    if kind.kind == "i" and value >= wrap / 2:
        return value - wrap
    return value + wrap if kind.kind == "u" and value < 0 else value


def _fill_padding(array: FloatArray, masks: Sequence[NDArray[np.bool_] | None]) -> bool:
    """Set padding of ``array`` (C, D, H, W) to the lowest valid value of all frames; whether there was any."""
    if not any(mask is not None for mask in masks):
        return False
    empty = np.zeros(array.shape[2:], bool)
    where = np.stack([empty if mask is None else mask for mask in masks])[np.newaxis]
    valid = array[~where]
    array[where] = valid.min() if valid.size else 0.0
    return True
