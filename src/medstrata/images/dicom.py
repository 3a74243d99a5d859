"""DICOM headers: what is this file, and what are its frames? Pixels are never read here (see ``dicom_pixels``)."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from typing import BinaryIO, cast

from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medstrata.errors import FileProblem, InputError
from medstrata.images import raster, vocabulary
from medstrata.images.dicom_frames import HEADER_TAGS, FrameHeader, Plane, frame_count, frames_of
from medstrata.images.dicom_header import PIXEL_KEYWORDS, UNDEFINED_LENGTH, Header
from medstrata.images.dicom_kinds import REASONS, not_an_image
from medstrata.images.dicom_values import DatasetValues, Values, quiet
from medstrata.images.dicom_walk import START_BYTES, walk
from medstrata.images.listing import Source
from medstrata.images.records import SkippedFile
from medstrata.images.sniff import FIRST_BYTES, sniff

__all__ = ["FrameHeader", "Plane", "parse_header", "read_headers"]

SYNTAX_OF_THE_STANDARD = re.compile(r"1\.2\.840\.10008\.1\.2(\.\d{1,3}){0,4}")
_FLOAT_BITS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
MAX_FRAMES = 100_000  # in one file; more is a damaged number
MAX_BYTES = 16 * 2**30  # of all frames of one file when decoded, as for a volume of NIfTI
ENCAPSULATED_FRAME_BYTES = 8  # an encapsulated frame takes at least the head of one item


class _Unnamed:
    """The part of a file that pydicom reads with. It asks a real file for its name, which members of a zip lack."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def read_headers(source: Source, name: str, opened: BinaryIO | None = None) -> list[FrameHeader | SkippedFile]:
    """Return one header per frame of a DICOM file, or the reason why it is left out.

    Pixels are not read. A file that cannot be opened or parsed becomes a ``SkippedFile``. ``opened``: the file itself,
    at its start, where it is open already.

    Raises
    ------
    InputError : INPUT itself is no longer reachable
    """
    try:
        with nullcontext(opened) if opened else source.open(name) as file:
            start = file.read(START_BYTES)
            if sniff(start[:FIRST_BYTES]) != "dicom":
                return [SkippedFile(name, "not_dicom", REASONS["not_dicom"])]
            size = os.fstat(file.fileno()).st_size if source.kind != "zip" else None
            header = walk(start, file)
            if header is not None:
                return _frames(header, name, size)
            file.seek(0)
            with quiet():
                return _frames(parse_header(file, HEADER_TAGS), name, size)
    except FileProblem as problem:
        return [SkippedFile(name, problem.code, problem.sentence, format="dicom")]
    except OSError as error:
        explained = source.explain(error)
        if not isinstance(explained, FileProblem):
            raise explained from None
        return [SkippedFile(name, explained.code, explained.sentence, format="dicom")]
    except (InputError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  any damage that pydicom stumbles over becomes this file's row
        reason = f"{REASONS['unreadable']} ({type(error).__name__})."
        return [SkippedFile(name, "unreadable", reason, format="dicom")]


def parse_header(file: BinaryIO, wanted: list[BaseTag]) -> Header[DatasetValues]:
    """Parse ``file`` up to its pixels, keeping only the elements ``wanted``. Call inside ``dicom_values.quiet``."""
    header = Header(DatasetValues(Dataset()), ImplicitVRLittleEndian)

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        start = file.tell()
        if tag in PIXEL_KEYWORDS:
            header.pixel_keyword, header.pixel_vr = PIXEL_KEYWORDS[tag], vr or "OW"
            header.pixel_length, header.pixel_start = length, start
            return True
        if length != UNDEFINED_LENGTH:
            header.header_end = start + length
        return False

    dataset = read_partial(cast(BinaryIO, _Unnamed(file)), stop_when=at_pixels, force=True, specific_tags=list(wanted))
    header.values, header.transfer_syntax = DatasetValues(dataset), _transfer_syntax(dataset)
    return header


def _transfer_syntax(dataset: Dataset) -> UID:
    """Return the transfer syntax; for a file without one, that in which pydicom found it written."""
    stated = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if stated:
        return UID(stated)
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _frames(header: Header[Values], name: str, size: int | None) -> list[FrameHeader | SkippedFile]:
    values = header.values
    modality = vocabulary.modality(values.text("Modality"))
    syntax = str(header.transfer_syntax) if SYNTAX_OF_THE_STANDARD.fullmatch(header.transfer_syntax) else ""
    code = _reason_to_skip(header, modality, size)
    if not code:
        return list(frames_of(values, name, modality, syntax))
    skipped = SkippedFile(
        name,
        code,
        REASONS[code],
        format="dicom",
        modality=modality,
        transfer_syntax=syntax,
        patient_id=values.text("PatientID"),
        study_uid=values.text("StudyInstanceUID"),
        series_uid=values.text("SeriesInstanceUID"),
        instance_uid=values.text("SOPInstanceUID"),
    )
    return [skipped]


def _reason_to_skip(header: Header[Values], modality: str, size: int | None) -> str:
    """Return the code of the reason why the file is left out, or ""."""
    values = header.values
    if values.has("DirectoryRecordSequence"):
        return "dicomdir"
    code = not_an_image(_sop_class(values), modality, header.transfer_syntax)
    if code:
        return code
    if not header.pixel_keyword:
        cut = size is not None and not header.deflated and header.header_end > size
        return "truncated" if cut else "no_pixels"
    bits = values.integer("BitsAllocated") or _FLOAT_BITS.get(header.pixel_keyword, 0)
    pixels = (values.integer("Rows") or 0) * (values.integer("Columns") or 0)
    if pixels <= 0 or bits <= 0:
        return "incomplete_header"
    frames, samples = frame_count(values), values.integer("SamplesPerPixel") or 1
    if frames > MAX_FRAMES:
        return "too_many_frames"
    if too_large(pixels, frames, samples * bits / 8):
        return "too_large"
    needed = frames * samples * pixels * bits / 8
    if values.text("PhotometricInterpretation") == "YBR_FULL_422":
        needed = needed * 2 / 3
    return "truncated" if _pixels_cut(header, frames, needed, size) else ""


def _sop_class(values: Values) -> str:
    """Return the class of the object; for one that does not say it, that of the file meta information."""
    stated = values.text("SOPClassUID")
    if stated or not isinstance(values, DatasetValues):
        return stated
    return str(values.dataset.file_meta.get("MediaStorageSOPClassUID", ""))


def too_large(pixels: int, frames: int, pixel_bytes: float) -> bool:
    """Whether frames of so many pixels are larger than images are: a few compressed bytes can claim any size."""
    return pixels > raster.MAX_PIXELS or pixels * frames * pixel_bytes > MAX_BYTES


def _pixels_cut(header: Header[Values], frames: int, needed: float, size: int | None) -> bool:
    """Whether there are fewer bytes than the frames need. Encapsulated pixels can only be checked roughly."""
    available = header.pixel_length
    if size is not None and not header.deflated:
        available = min(available, size - header.pixel_start)
    if header.pixel_length == UNDEFINED_LENGTH:
        return available < frames * ENCAPSULATED_FRAME_BYTES
    return available < int(needed)
