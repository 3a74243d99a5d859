"""DICOM headers: what is this file, and what are its frames? Pixels are never read here (see ``dicom_pixels``)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medstrata.errors import FileProblem, InputError
from medstrata.images import raster, vocabulary
from medstrata.images.dicom_frames import HEADER_TAGS, FrameHeader, Plane, frame_count, frames_of
from medstrata.images.dicom_kinds import REASONS, not_an_image
from medstrata.images.dicom_values import Values, quiet
from medstrata.images.listing import Source
from medstrata.images.records import FrameSource, SkippedFile
from medstrata.images.sniff import FIRST_BYTES, sniff

__all__ = ["FrameHeader", "Header", "Plane", "parse_header", "read_headers"]

PIXEL_KEYWORDS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
UNDEFINED_LENGTH = 0xFFFFFFFF
SYNTAX_OF_THE_STANDARD = re.compile(r"1\.2\.840\.10008\.1\.2(\.\d{1,3}){0,4}")
MAX_FRAMES = 100_000  # in one file; more is a damaged number
MAX_BYTES = 16 * 2**30  # of all frames of one file when decoded, as for a volume of NIfTI
ENCAPSULATED_FRAME_BYTES = 8  # an encapsulated frame takes at least the head of one item


class _Unnamed:
    """The part of a file that pydicom reads with. It asks a real file for its name, which members of a zip lack."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@dataclass(slots=True)
class Header:
    """A parsed header; ``dataset`` has the file meta information too.

    The ``pixel_*`` fields are "" and 0 when the file has no pixel element.
    """

    dataset: Dataset
    transfer_syntax: UID
    pixel_keyword: str = ""
    pixel_vr: str = ""
    pixel_length: int = 0  # bytes as declared; UNDEFINED_LENGTH for encapsulated pixels
    pixel_start: int = 0  # where the value starts in the file; meaningless for the deflated syntax
    header_end: int = 0  # where the last element read should end

    @property
    def deflated(self) -> bool:
        """Whether everything after the file meta information is compressed, so that no offset means anything."""
        return self.transfer_syntax == DeflatedExplicitVRLittleEndian


def read_headers(source: Source, name: str) -> list[FrameHeader | SkippedFile]:
    """Return one header per frame of a DICOM file, or the reason why it is left out.

    Pixels are not read. A file that cannot be opened or parsed becomes a ``SkippedFile``.

    Raises
    ------
    InputError : INPUT itself is no longer reachable
    """
    skipped = SkippedFile(name, "", "", format="dicom")
    try:
        with source.open(name) as file, quiet():
            if sniff(file.read(FIRST_BYTES)) != "dicom":
                return [replace(skipped, code="not_dicom", reason=REASONS["not_dicom"], format="")]
            file.seek(0)
            size = os.fstat(file.fileno()).st_size if source.local_path(name) is not None else None
            return _frames(file, name, size)
    except FileProblem as problem:
        return [replace(skipped, code=problem.code, reason=problem.sentence)]
    except OSError as error:
        explained = source.explain(error)
        if not isinstance(explained, FileProblem):
            raise explained from None
        return [replace(skipped, code=explained.code, reason=explained.sentence)]
    except (InputError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  any damage that pydicom stumbles over becomes this file's row
        return [replace(skipped, code="unreadable", reason=f"{REASONS['unreadable']} ({type(error).__name__}).")]


def parse_header(file: BinaryIO, wanted: list[BaseTag]) -> Header:
    """Parse ``file`` up to its pixels, keeping only the elements ``wanted``. Call inside ``dicom_values.quiet``."""
    header = Header(Dataset(), ImplicitVRLittleEndian)

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        start = file.tell()
        if tag in PIXEL_KEYWORDS:
            header.pixel_keyword, header.pixel_vr = PIXEL_KEYWORDS[tag], vr or "OW"
            header.pixel_length, header.pixel_start = length, start
            return True
        if length != UNDEFINED_LENGTH:
            header.header_end = start + length
        return False

    header.dataset = read_partial(
        cast(BinaryIO, _Unnamed(file)), stop_when=at_pixels, force=True, specific_tags=list(wanted)
    )
    header.transfer_syntax = _transfer_syntax(header.dataset)
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


def _frames(file: BinaryIO, name: str, size: int | None) -> list[FrameHeader | SkippedFile]:
    header = parse_header(file, HEADER_TAGS)
    values = Values(header.dataset)
    modality = vocabulary.modality(values.text("Modality"))
    syntax = str(header.transfer_syntax) if SYNTAX_OF_THE_STANDARD.fullmatch(header.transfer_syntax) else ""
    source = FrameSource(
        file=name,
        patient_id=values.text("PatientID"),
        study_uid=values.text("StudyInstanceUID"),
        series_uid=values.text("SeriesInstanceUID"),
        instance_uid=values.text("SOPInstanceUID"),
        institution=values.text("InstitutionName"),
        study_date=values.text("StudyDate") or values.text("AcquisitionDate"),
    )
    code = _reason_to_skip(header, values, modality, size)
    if not code:
        return list(frames_of(header.dataset, source, modality, syntax))
    skipped = SkippedFile(
        name,
        code,
        REASONS[code],
        format="dicom",
        modality=modality,
        transfer_syntax=syntax,
        patient_id=source.patient_id,
        study_uid=source.study_uid,
        series_uid=source.series_uid,
        instance_uid=source.instance_uid,
    )
    return [skipped]


def _reason_to_skip(header: Header, values: Values, modality: str, size: int | None) -> str:
    """Return the code of the reason why the file is left out, or ""."""
    meta = header.dataset.file_meta
    sop_class = values.text("SOPClassUID") or str(meta.get("MediaStorageSOPClassUID", ""))
    if values.has("DirectoryRecordSequence"):
        return "dicomdir"
    code = not_an_image(sop_class, modality, header.transfer_syntax)
    if code:
        return code
    if not header.pixel_keyword:
        cut = size is not None and not header.deflated and header.header_end > size
        return "truncated" if cut else "no_pixels"
    bits = values.integer("BitsAllocated") or {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(
        header.pixel_keyword, 0
    )
    pixels = (values.integer("Rows") or 0) * (values.integer("Columns") or 0)
    if pixels <= 0 or bits <= 0:
        return "incomplete_header"
    if frame_count(values) > MAX_FRAMES:
        return "too_many_frames"
    if too_large(pixels, frame_count(values), (values.integer("SamplesPerPixel") or 1) * bits / 8):
        return "too_large"
    return "truncated" if _pixels_cut(header, values, pixels * bits / 8, size) else ""


def too_large(pixels: int, frames: int, pixel_bytes: float) -> bool:
    """Whether frames of so many pixels are larger than images are: a few compressed bytes can claim any size."""
    return pixels > raster.MAX_PIXELS or pixels * frames * pixel_bytes > MAX_BYTES


def _pixels_cut(header: Header, values: Values, sample_bytes: float, size: int | None) -> bool:
    """Whether there are fewer bytes than the frames need. Encapsulated pixels can only be checked roughly."""
    frames = frame_count(values)
    available = header.pixel_length
    if size is not None and not header.deflated:
        available = min(available, size - header.pixel_start)
    if header.pixel_length == UNDEFINED_LENGTH:
        return available < frames * ENCAPSULATED_FRAME_BYTES
    needed = frames * (values.integer("SamplesPerPixel") or 1) * sample_bytes
    if values.text("PhotometricInterpretation") == "YBR_FULL_422":
        needed = needed * 2 / 3
    return available < int(needed)
