"""What is read of one DICOM header, by pydicom or without it: values, and where the pixels lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from medstrata.images.dicom_values import Values

PIXEL_KEYWORDS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
UNDEFINED_LENGTH = 0xFFFFFFFF

Read = TypeVar("Read", bound=Values, covariant=True)


@dataclass(slots=True)
class Header(Generic[Read]):
    """A parsed header. The ``pixel_*`` fields are "" and 0 when the file has no pixel element."""

    values: Read
    transfer_syntax: UID
    pixel_keyword: str = ""
    pixel_vr: str = ""
    pixel_length: int = 0  # bytes as declared; UNDEFINED_LENGTH for encapsulated pixels
    pixel_start: int = 0  # where the value starts in the file; meaningless for the deflated syntax
    header_end: int = 0  # where the last element read should end; known only where there are no pixels

    @property
    def deflated(self) -> bool:
        """Whether everything after the file meta information is compressed, so that no offset means anything."""
        return self.transfer_syntax == DeflatedExplicitVRLittleEndian
